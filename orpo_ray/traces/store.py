"""The trace store: a directory of Parquet parts that appears whole, by rename, with its manifest.

    traces/teacher-<key>.partial/part-000007.parquet   while it is made; a killed phase goes on from these
    traces/teacher-<key>/part-000007.parquet           once it is whole
    traces/teacher-<key>/manifest.json                 its key, what the key was made from, and counts

A part holds one block of prompts, each with all its traces. The key is a fingerprint of everything the traces depend
on, so whoever finds the directory may use what is in it.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orpo_ray.errors import InputError
from orpo_ray.traces.counts import TraceCounts
from orpo_ray.traces.record import Trace, from_table, to_table

FORMAT = 1
MANIFEST = "manifest.json"
_PART = re.compile(r"part-(\d{6,})\.parquet")
_PROMPTS = b"orpo_ray.prompts"


@dataclass(frozen=True)
class TraceStore:
    """A finished store."""

    directory: Path
    manifest: Mapping[str, Any]

    @classmethod
    def find(cls, directory: Path, key: str) -> "TraceStore | None":
        """The finished store in `directory`, if it is there and was made under `key`."""
        try:
            manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        fits = manifest.get("key") == key and manifest.get("format") == FORMAT
        return cls(directory, manifest) if fits else None

    @property
    def counts(self) -> TraceCounts:
        return TraceCounts.from_json(self.manifest["counts"])

    def prompts(self) -> Iterator[tuple[str, list[Trace]]]:
        """Each prompt that has traces, in the order of the task's rows; one part is in memory at a time."""
        for part in _parts(self.directory).values():
            traces = from_table(pq.read_table(part))
            for prompt_id, group in groupby(traces, key=lambda trace: trace.prompt_id):
                yield prompt_id, list(group)


@dataclass(frozen=True)
class TraceDraft:
    """A store in the making. Several processes may write different blocks of it, and a later one may go on."""

    directory: Path
    """Where the finished store will lie."""

    @property
    def partial(self) -> Path:
        return self.directory.with_name(self.directory.name + ".partial")

    def blocks(self) -> set[int]:
        """Blocks that are written already."""
        return set(_parts(self.partial))

    def counts(self) -> TraceCounts:
        """Counts over the blocks that are written, read part by part."""
        return sum((_part_counts(part) for part in _parts(self.partial).values()), TraceCounts())

    def write(self, block: int, traces: Sequence[Trace], prompts: int) -> None:
        """Write one block, wholly or not at all.

        Args:
            traces: those of one prompt next to each other.
            prompts: prompts of the block, those without a trace included.
        """
        self.partial.mkdir(parents=True, exist_ok=True)
        table = to_table(traces).replace_schema_metadata({_PROMPTS: str(prompts)})
        final = self.partial / f"part-{block:06d}.parquet"
        # Two attempts at one block may overlap after a kill; each writes a file of its own and the last rename stays.
        own = self.partial / f".{final.name}.{uuid.uuid4().hex[:8]}"
        with own.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            _flush(file)
        os.replace(own, final)

    def finish(self, blocks: int, key: str, made_from: Mapping[str, Any]) -> TraceStore:
        """Give the store its manifest and its name.

        Args:
            blocks: how many blocks there should be, numbered from 0.
            key: the fingerprint of `made_from`.

        Raises:
            InputError: something else lies where the store should.
        """
        missing = set(range(blocks)) - self.blocks()
        if missing:
            raise ValueError(f"{self.partial}: blocks {sorted(missing)[:5]} of {blocks} are not written")
        manifest = {"format": FORMAT, "key": key, "made_from": dict(made_from), "counts": self.counts().to_json()}
        for leftover in self.partial.glob(".*"):
            leftover.unlink(missing_ok=True)
        with (self.partial / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2, ensure_ascii=False)
            _flush(file)
        try:
            self.partial.rename(self.directory)
        except OSError:
            # Another run with the same key was first: its traces are as good.
            found = TraceStore.find(self.directory, key)
            if found is None:
                raise InputError(
                    f"{self.directory}: in the way of a trace store, but has no {MANIFEST} with key {key}; move it away"
                ) from None
            shutil.rmtree(self.partial, ignore_errors=True)
            return found
        return TraceStore(self.directory, manifest)


def _parts(directory: Path) -> dict[int, Path]:
    """Part files by block, in order; none where there is no such directory."""
    if not directory.is_dir():
        return {}
    matches = ((_PART.fullmatch(file.name), file) for file in directory.iterdir())
    return dict(sorted((int(match[1]), file) for match, file in matches if match))


def _part_counts(part: Path) -> TraceCounts:
    metadata: dict[bytes, bytes] = pq.read_schema(part).metadata
    return TraceCounts.of(from_table(pq.read_table(part)), int(metadata[_PROMPTS]))


def _flush(file: Any) -> None:
    """A rename must not reach the disk before what is renamed."""
    file.flush()
    os.fsync(file.fileno())
