"""A run brought down from its mirror: data first, run.json last, so that a run which is there is there whole."""

import hashlib
import json
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import InputError
from orpo_ray.mirror.contents import TRACES, is_left_here, local_file
from orpo_ray.mirror.index import FILES, Entry, Index, Note, Seen
from orpo_ray.mirror.place import CHUNK, Heard, Place
from orpo_ray.mirror.pool import Look, transfer
from orpo_ray.traces.store import MANIFEST as TRACES_MANIFEST
from orpo_ray.weights.published import MANIFEST

_STATE = "run.json"
_GIB = 1 << 30


class _NotWholeError(Exception):
    """An object is not there, or not what the index says."""


class Fetcher:
    """Brings the state that an index names to this machine, on as many calls as it takes.

    Args:
        place: of this run.
        heard: called whenever something got through.
    """

    def __init__(self, place: Place, layout: RunLayout, index: Index, heard: Heard = lambda: None) -> None:
        self._files, self._layout, self._index, self._heard = place.below(FILES), layout, index, heard
        self._url = place.url
        self._note = Note(index.line, index.number, [index.commit])
        self._whole: set[str] = set()
        self._broken: dict[str, str] = {}
        self._others = {path for path in index.files if self._is_anothers(path)}

    def check_room(self) -> None:
        """Raises InputError where the disk is too small."""
        self._layout.run.mkdir(parents=True, exist_ok=True)
        missing = (path for path in self._index.files if not local_file(self._layout, path).exists())
        needed = sum(self._index.files[path].size for path in missing)
        free = shutil.disk_usage(self._layout.run).free
        if needed > free:
            raise InputError(
                f"storage.path: {self._layout.storage} has {free / _GIB:.1f} GiB free, and the run in {self._url} has "
                f"{needed / _GIB:.1f} GiB; free some, or give another directory"
            )

    def fetch(self, look: Look) -> list[str]:
        """Bring down what is not here yet.

        Returns:
            A sentence on each part that is not whole in the mirror; the run goes on without it.

        Raises:
            OSError: the store does not answer; what is here stays, and the next call goes on.
            InputError: the mirror lacks something that the run cannot go on without.
        """
        settled = self._whole | self._others | self._broken.keys() | {_STATE}
        paths = sorted(self._index.files.keys() - settled)
        # Where a store's manifest is, the store is taken for whole.
        for last in (False, True):
            transfer((partial(self._bring, path) for path in paths if _is_manifest_of_traces(path) is last), look)
        said = self._without_broken()
        self._remove_others()
        self._bring(_STATE)
        if _STATE in self._broken:
            raise self._refusal(_STATE)
        self._note.save(self._layout.mirrored)
        return said

    def _is_anothers(self, path: str) -> bool:
        """Whether a run of this storage has these traces already: as good, and not to be written over under it."""
        if not path.startswith(f"{TRACES}/"):
            return False
        file = local_file(self._layout, path)
        store = self._layout.storage / TRACES / path.split("/")[1]
        return (store / TRACES_MANIFEST).is_file() or ((file == store or store.suffix == ".partial") and file.is_file())

    def _bring(self, path: str) -> None:
        entry, target = self._index.files[path], local_file(self._layout, path)
        if not (target.is_file() and target.stat().st_size == entry.size and _digest(target) == entry.digest):
            try:
                self._download(entry, target, moves=self._moves(path))
            except (_NotWholeError, FileNotFoundError) as error:
                self._broken[path] = str(error) if isinstance(error, _NotWholeError) else "it is not there"
                return
        stat = target.stat()
        self._note.seen[path] = Seen(stat.st_size, stat.st_mtime_ns, "" if self._moves(path) else entry.digest)
        self._whole.add(path)

    def _moves(self, path: str) -> bool:
        """Whether a file tells where others lie, and they lie elsewhere now."""
        tells = (
            path == _STATE
            or (path.startswith("evaluations/") and path.endswith(".json"))
            or (path.startswith("checkpoints/") and path.endswith(MANIFEST))
        )
        return tells and self._index.storage != str(self._layout.storage)

    def _download(self, entry: Entry, target: Path, *, moves: bool) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        incoming = target.with_name(f"{target.name}.partial")
        digest, size = hashlib.blake2b(digest_size=16), 0
        with incoming.open("wb") as file:
            for chunk in self._files.chunks(entry.object):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                self._heard()
        if (size, digest.hexdigest()) != (entry.size, entry.digest):
            incoming.unlink()
            raise _NotWholeError(f"it has {size} bytes and another digest; {entry.size} bytes were sent")
        if moves:
            moved = _moved(json.loads(incoming.read_text("utf-8")), self._index.storage, str(self._layout.storage))
            incoming.write_text(json.dumps(moved, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(incoming, target)

    def _without_broken(self) -> list[str]:
        """Take out what a broken file is part of, where the run can go on without it."""
        parts: dict[str, str] = {}
        for path, why in self._broken.items():
            part = _part(path)
            if part is None:
                raise self._refusal(path)
            parts.setdefault(part, f"{path}: {why}")
        for part in parts:
            whole = self._layout.run / part
            shutil.rmtree(whole) if whole.is_dir() else whole.unlink(missing_ok=True)
            for path in [path for path in self._note.seen if path == part or path.startswith(f"{part}/")]:
                del self._note.seen[path]
        return [
            f"{part} is not whole in {self._url} ({why}); the run goes on without it" for part, why in parts.items()
        ]

    def _refusal(self, path: str) -> InputError:
        return InputError(
            f"storage.mirror: {self._url} lacks {path} as it was sent ({self._broken[path]}), and the run cannot go on without "
            "it; bring back the bucket's earlier version of it, or begin anew under another name with --set name=…"
        )

    def _remove_others(self) -> None:
        """What an earlier attempt to bring another state down has left."""
        for file in self._layout.run.rglob("*"):
            path = file.relative_to(self._layout.run)
            if file.is_file() and not is_left_here(path.parts[0]) and str(path) not in self._index.files:
                file.unlink()


def set_aside(layout: RunLayout) -> Path:
    """Move a run out of the way, but for its lock, which this process holds; where it is now."""
    target = layout.storage / f".{layout.name}-superseded-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    target.mkdir()
    for place in layout.run.iterdir():
        if place != layout.lock:
            place.rename(target / place.name)
    return target


def _is_manifest_of_traces(path: str) -> bool:
    return path.startswith(f"{TRACES}/") and path.endswith(f"/{TRACES_MANIFEST}")


def _part(path: str) -> str | None:
    """The part of a run that is of no use without this file, where the run can go on without that part."""
    first, *rest = path.split("/")
    if first in ("checkpoints", "weights"):
        return f"{first}/{rest[0]}"
    if first in ("export", "tensorboard", "mlruns", "wandb"):
        return first
    return path if first == "journal" else None


def _moved(data: Any, before: str, after: str) -> Any:
    """The same data, with the paths in it beginning otherwise."""
    if isinstance(data, dict):
        return {name: _moved(value, before, after) for name, value in data.items()}
    if isinstance(data, list):
        return [_moved(value, before, after) for value in data]
    if isinstance(data, str) and data.startswith(f"{before}/"):
        return after + data.removeprefix(before)
    return data


def _digest(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
