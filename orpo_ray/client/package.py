"""What a run takes along to the cluster: its configuration, and a working directory where it needs one."""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orpo_ray.config import RunConfig, dump_config
from orpo_ray.errors import InputError

CONFIG_FILE = "run.yaml"
LARGEST_PACKAGE = 100 << 20
"""Bytes. Every node that works for the run fetches the package; models and data sets belong on the storage."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """A zip file that Ray unpacks as the job's working directory; named by its content, so it is uploaded once."""

    name: str
    content: bytes


def make_package(config: RunConfig, working_dir: Path | None = None) -> Package:
    """The configuration as run.yaml, beside the files of `working_dir`.

    Left out are names that begin with a dot (.git, .env, …), __pycache__, symbolic links, and the run's storage.

    Raises:
        InputError: the directory is none, holds a run.yaml of its own in the way, or is too large.
    """
    opened = io.BytesIO()
    with zipfile.ZipFile(opened, "w", zipfile.ZIP_DEFLATED) as package:
        _add(package, CONFIG_FILE, dump_config(config).encode())
        size = 0
        for file in _files(working_dir, Path(config.storage.path)) if working_dir else ():
            name = file.relative_to(working_dir or file).as_posix()
            if name == CONFIG_FILE:
                continue  # what is submitted takes its place
            size += file.stat().st_size
            if size > LARGEST_PACKAGE:
                raise InputError(
                    f"--working-dir: {working_dir} holds more than {LARGEST_PACKAGE >> 20} MiB, which every node would "
                    "fetch; keep models and data on the storage, and code alone here"
                )
            _add(package, name, file.read_bytes(), file.stat().st_mode)
    content = opened.getvalue()
    return Package(f"_ray_pkg_{hashlib.sha256(content).hexdigest()[:32]}.zip", content)


def _files(directory: Path, storage: Path) -> Iterator[Path]:
    if not directory.is_dir():
        raise InputError(f"--working-dir: {directory} is no directory")
    storage = storage.resolve()
    for parent, folders, names in os.walk(directory):
        here = Path(parent)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name != "__pycache__" and (here / name).resolve() != storage
        )
        for name in sorted(names):
            file = here / name
            if not name.startswith(".") and not file.is_symlink() and file.is_file():
                yield file


def _add(package: zipfile.ZipFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """With a fixed time, so that the same files make the same package."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (mode & 0o777) << 16
    package.writestr(entry, content)
