"""The mirror's index: which files it holds, each with its length and digest. It is replaced last, so that what it names is there.

    PREFIX/demo/index.json         the index, written in one piece
    PREFIX/demo/driver.json        the driver that writes here
    PREFIX/demo/files/run.json, files/checkpoints/step-000120/…, files/traces/teacher-<key>/…

A file that changes gets another object and the old one is removed after the index no longer names it: whatever is cut short,
the index speaks of whole files.
"""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from orpo_ray.errors import InputError
from orpo_ray.mirror.place import Place

INDEX = "index.json"
FILES = "files"
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A file in the mirror.

    Attributes:
        object: its name below `files/`: the file's own, or with its digest behind where that one was taken.
        size: bytes.
        digest: BLAKE2b of its content, 16 bytes in hex.
    """

    object: str
    size: int
    digest: str


@dataclass(frozen=True)
class Index:
    """A committed state of a run.

    Attributes:
        line: of the mirror, since it was first written; a run of the same name from elsewhere has another.
        number: how often the index has been written.
        commit: this state's own name, unlike any other driver's.
        storage: the directory that paths inside the run's files begin with.
        files: by the paths that they have below the run's directory; traces, which lie beside it, below `traces/`.
    """

    line: str
    number: int
    commit: str
    storage: str
    files: Mapping[str, Entry]

    @classmethod
    def first(cls, storage: Path) -> "Index":
        """Of a mirror that holds nothing yet."""
        return cls(uuid.uuid4().hex[:16], 0, "", str(storage), {})

    def next(self, storage: Path, files: Mapping[str, Entry]) -> "Index":
        """The state after this one."""
        return replace(
            self, number=self.number + 1, commit=uuid.uuid4().hex[:16], storage=str(storage), files=dict(files)
        )

    def object_for(self, path: str, digest: str) -> str:
        """Where to put new content of a file, so that nothing that this index names is written over."""
        taken = self.files.get(path)
        return f"{path}.{digest[:12]}" if taken is not None and taken.object == path else path

    def objects(self) -> set[str]:
        """All objects that it names."""
        return {entry.object for entry in self.files.values()}


def read_index(place: Place) -> Index | None:
    """The index; None where there is no mirror of this run.

    Raises:
        OSError: the store does not answer.
        InputError: it is not an index that this version understands.
    """
    content = place.read(INDEX)
    if content is None:
        return None
    try:
        data: dict[str, Any] = json.loads(content)
        if data.pop("format") != FORMAT:
            raise ValueError("another format")
        files = {_inside(path): Entry(*entry) for path, entry in data.pop("files").items()}
        return Index(**data, files=files)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"storage.mirror: {place.url}/{INDEX} is not the index of a mirror that this version of orpo_ray understands "
            f"({error}); give another prefix"
        ) from None


def write_index(place: Place, index: Index) -> None:
    """Commit a state."""
    data = asdict(replace(index, files={}))
    data["files"] = {path: [entry.object, entry.size, entry.digest] for path, entry in sorted(index.files.items())}
    place.replace(INDEX, json.dumps({"format": FORMAT, **data}, ensure_ascii=False).encode())


@dataclass(frozen=True)
class Seen:
    """A local file when its digest was taken; while length and time stay, so does the digest."""

    size: int
    changed_ns: int
    digest: str


@dataclass
class Note:
    """What this storage knows of its mirror: mirror.json beside the run, not part of the mirror.

    Attributes:
        line, number: of the last index that was written from here, or brought here.
        commits: the commit of that index, and of the one that was about to be written when the process ended, if any.
        seen: local files by path.
    """

    line: str = ""
    number: int = 0
    commits: list[str] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Write it whole or not at all."""
        data = {
            **asdict(replace(self, seen={})),
            "seen": {path: [seen.size, seen.changed_ns, seen.digest] for path, seen in self.seen.items()},
        }
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        os.replace(partial, file)


def read_note(file: Path) -> Note:
    """The note in `file`; an empty one where there is none that can be read, which costs reading files anew."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Note(**{**data, "seen": {path: Seen(*values) for path, values in data["seen"].items()}})
    except (OSError, KeyError, TypeError, ValueError):
        return Note()


def _inside(path: str) -> str:
    """A path that stays below the run's directory; an index is read from a place that others may write to."""
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} is no path of a run's file")
    return path
