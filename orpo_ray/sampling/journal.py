"""The journal: every sampled block of pair groups, on the storage before anybody trains on it (DESIGN promise 4).

    journal/step-000012/rows-000000384-000000400-v000003.parquet

A block's file is named by its rows and the version that sampled them, and lies under the optimizer step that trains
them, so that a resumed run finds a block without an index and drops what a dead timeline sampled without opening it.
"""

import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_NAME = re.compile(r"rows-(\d+)-(\d+)-v(\d+)\.parquet")


@dataclass(frozen=True)
class Journal:
    """The journal below `directory`; `global_batch` rows lie under one step."""

    directory: Path
    global_batch: int

    def find(self, first: int, count: int) -> pa.Table | None:
        """The block of `count` rows from row `first`, as it was sampled; None where it was not."""
        matches = sorted(self._step(first).glob(f"rows-{first:09d}-{first + count:09d}-v*.parquet"))
        return pq.read_table(matches[-1]) if matches else None

    def append(self, first: int, table: pa.Table, version: int) -> Path:
        """Write a block. It appears by rename, so a reader sees all of it or nothing."""
        step = self._step(first)
        step.mkdir(parents=True, exist_ok=True)
        final = step / f"rows-{first:09d}-{first + table.num_rows:09d}-v{version:06d}.parquet"
        # Two samplers may write the same block after a kill; each writes a file of its own and the last rename stays.
        partial = final.with_name(f"{final.name}.{uuid.uuid4().hex[:8]}.partial")
        pq.write_table(table, partial, compression="zstd")
        os.replace(partial, final)
        return final

    def blocks(self) -> Iterator[tuple[int, pa.Table]]:
        """Every sampled block in the order of its rows, with the optimizer step (from 1) that trains it; lazily."""
        for directory in sorted(self.directory.glob("step-*")):
            step = 1 + int(directory.name.removeprefix("step-"))
            # Where two versions sampled the same rows, the newer is the one that `find` gives.
            newest = {match[1]: file for file in sorted(directory.iterdir()) if (match := _NAME.fullmatch(file.name))}
            for file in newest.values():
                yield step, pq.read_table(file)

    def drop_dead_timeline(self, step: int, version: int) -> int:
        """Remove blocks from optimizer step `step` on that a version after `version` sampled; returns how many."""
        dropped = 0
        for directory in self.directory.glob("step-*"):
            if int(directory.name.removeprefix("step-")) < step:
                continue
            for file in directory.iterdir():
                match = _NAME.fullmatch(file.name)
                if match is None or int(match[3]) > version:
                    file.unlink(missing_ok=True)
                    dropped += match is not None
        return dropped

    def _step(self, row: int) -> Path:
        return self.directory / f"step-{row // self.global_batch:06d}"
