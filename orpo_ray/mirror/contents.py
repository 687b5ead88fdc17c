"""What of a run a fresh machine needs: everything in its directory but what only this machine has a use for.

Read in an order in which no file speaks of one that is not there: run.json, then the checkpoints, then the rest, which is as
new as they are or newer. A resumed run drops what is newer than its checkpoint.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_ray.config.layout import RunLayout
from orpo_ray.weights.published import IncompleteVersionError, check_published

TRACES = "traces"
# The kernel's lock, this mirror's own files, Ray Train's, and logs, which grow and which nobody goes on from.
_LEFT_HERE = ("lock", "mirror.json", "train", "logs", "libraries.log")
# Chosen from, above.
_CHOSEN = ("run.json", "checkpoints", "weights")


@dataclass(frozen=True)
class Item:
    """A file to be kept.

    Attributes:
        path: in the index.
        file: on this machine.
        size: bytes when it was looked at; it may grow.
        changed_ns: when it was last changed then.
    """

    path: str
    file: Path
    size: int
    changed_ns: int


def contents(layout: RunLayout, state: Path | None, kept: Collection[str], stores: Collection[Path]) -> list[Item]:
    """The files of the run as it is now.

    Args:
        state: run.json as it was before all else was looked at; None where there is none yet.
        kept: paths that the mirror has: an older checkpoint is kept while it is here, but not sent any more.
        stores: trace stores that the run is making, as it has said.

    Raises:
        FileNotFoundError: a file went while it was looked at; look again.
    """
    items = []
    results: list[dict[str, Any]] = []
    if state is not None:
        items.append(_item("run.json", state))
        results = [phase["result"] for phase in json.loads(state.read_text())["phases"].values()]
    checkpoints = _checkpoints(layout, kept)
    versions = _versions(layout, checkpoints)
    for directory in (*(path for path, _ in checkpoints), *versions):
        items += _below(directory, f"{directory.parent.name}/{directory.name}")
    for place in sorted(layout.run.iterdir()):
        if place.name not in _CHOSEN and not is_left_here(place.name):
            items += _below(place, place.name)
    for place in _traces(layout, results, kept, stores):
        items += _below(place, f"{TRACES}/{place.name}")
    return items


def newest_checkpoint(paths: Collection[str]) -> str | None:
    """Name of the newest checkpoint among paths of an index."""
    return max((path.split("/")[1] for path in paths if path.startswith("checkpoints/")), default=None)


def local_file(layout: RunLayout, path: str) -> Path:
    """Where a path of an index lies on this machine."""
    return (layout.storage if path.startswith(f"{TRACES}/") else layout.run) / path


def _checkpoints(layout: RunLayout, kept: Collection[str]) -> list[tuple[Path, dict[str, Any]]]:
    """The newest whole checkpoint, and those before it that the mirror has already."""
    there = {path.split("/")[1] for path in kept if path.startswith("checkpoints/")}
    found: list[tuple[Path, dict[str, Any]]] = []
    for directory in sorted(layout.checkpoints.glob("step-*"), reverse=True):
        if directory.suffix == ".partial" or (found and directory.name not in there):
            continue
        try:
            found.append((directory, check_published(directory)))
        except IncompleteVersionError:
            continue
    return found


def _versions(layout: RunLayout, checkpoints: list[tuple[Path, dict[str, Any]]]) -> list[Path]:
    """The versions that the checkpoints resume with, and those that end an epoch, which are still to be evaluated or chosen."""
    needed = {Path(facts["version_path"]).name for _, facts in checkpoints}
    newest = max((facts["version"] for _, facts in checkpoints), default=0)
    chosen = []
    for directory in sorted(layout.weights.glob("v*")):
        if directory.suffix == ".partial":
            continue
        try:
            facts = check_published(directory)
        except IncompleteVersionError:
            continue
        if directory.name in needed or (facts.get("epoch") is not None and facts["number"] <= newest):
            chosen.append(directory)
    return chosen


def _traces(
    layout: RunLayout, results: list[dict[str, Any]], kept: Collection[str], stores: Collection[Path]
) -> list[Path]:
    """The run's trace stores, whole or in the making; they lie beside the run, since runs share them."""
    home = layout.storage / TRACES
    named = {Path(result["path"]) for result in _with_parts(results) if "path" in result} | set(stores)
    names = {path.name for path in named if path.parent == home} | {
        path.split("/")[1].removesuffix(".partial") for path in kept if path.startswith(f"{TRACES}/")
    }
    both = [home / name for name in sorted(names)]
    return [place if place.exists() else place.with_name(f"{place.name}.partial") for place in both]


def _with_parts(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Results, and those of each teacher in TEACH's."""
    for result in results:
        yield result
        yield from result.get("teachers", [])


def _below(place: Path, path: str) -> Iterator[Item]:
    """The file, or all files in the directory, but for links and for what is being written."""
    if place.is_dir() and not place.is_symlink():
        for inner in sorted(place.iterdir()):
            if ".partial" not in inner.name and not (path.startswith(TRACES) and inner.name.startswith(".")):
                yield from _below(inner, f"{path}/{inner.name}")
    elif place.is_file() and not place.is_symlink():
        yield _item(path, place)


def is_left_here(name: str) -> bool:
    """Whether what lies under this name in a run's directory is of use on this machine only."""
    return name in _LEFT_HERE or name.startswith(".") or ".partial" in name


def _item(path: str, file: Path) -> Item:
    stat = file.stat()
    return Item(path, file, stat.st_size, stat.st_mtime_ns)
