"""A published student's directory: it appears by rename, its manifest last, and is never half of a model."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from orpo_ray.errors import OrpoRayError

MANIFEST = "orpo_ray_version.json"


class IncompleteVersionError(OrpoRayError):
    """A version's directory is not what its manifest says; it must not be loaded."""


def publish_directory(final: Path, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
    """Write a directory so that a reader sees all of it or nothing.

    Args:
        final: the directory to appear.
        write: fills the directory it is given.
        facts: put into the manifest beside the files' sizes.
    """
    partial = final.with_name(final.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    seal_directory(partial, final, facts)


def seal_directory(partial: Path, final: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a filled directory, and let it appear under its final name."""
    sizes = {
        str(file.relative_to(partial)): file.stat().st_size for file in sorted(partial.rglob("*")) if file.is_file()
    }
    with (partial / MANIFEST).open("w") as manifest:
        json.dump({**facts, "files": sizes}, manifest, indent=1)
        manifest.flush()
        os.fsync(manifest.fileno())
    # A directory of this name can only be left over from an attempt that died before its checkpoint.
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def check_published(directory: Path) -> dict[str, Any]:
    """The manifest of a published directory, after comparing every file's size with it.

    Raises:
        IncompleteVersionError: if the manifest is missing or a file is not whole.
    """
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise IncompleteVersionError(
            f"{directory}: no readable manifest, so it was never published whole: {error}"
        ) from None
    for name, size in manifest["files"].items():
        file = directory / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise IncompleteVersionError(f"{file}: {found} bytes, the manifest says {size}")
    return manifest


def version_directory(weights: Path, number: int, attempt: int) -> Path:
    """Where version `number` of `attempt` lies; the attempt keeps timelines apart."""
    return weights / f"v{number:06d}-a{attempt:03d}"


def drop_newer(weights: Path, number: int) -> list[str]:
    """Remove versions after `number`, and half-written directories: they belong to a dead timeline."""
    dropped = []
    for directory in sorted(weights.glob("v*")):
        if directory.name.endswith(".partial") or int(directory.name[1:].split("-")[0]) > number:
            shutil.rmtree(directory, ignore_errors=True)
            dropped.append(directory.name)
    return dropped


def remove_versions(paths: Iterable[str]) -> None:
    """Delete versions that nobody needs: the manifest first, so that what a kill leaves is never taken for whole."""
    for path in paths:
        (Path(path) / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
