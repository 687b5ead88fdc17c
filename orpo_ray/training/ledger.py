"""The ledger: what the ranks trained on, one JSON line a row, written by the rank that trained it (DESIGN promise 7).

    ledger/attempt-002-rank-0.jsonl

Lines of steps that no checkpoint committed are dropped when the next attempt starts, so that what is left is the
committed lineage and each of its rows stands once.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orpo_ray.pairs import PairGroup


@dataclass(frozen=True)
class LedgerLine:
    """One row, trained.

    Attributes:
        step: the optimizer step that it was part of, from 1.
        rank: the one that trained it; of a row that was split over ranks, the one that trained its first pairs.
        policy: where its negatives came from: live, initial, none; `padding` for a row of weight 0; `skipped` where the
            step was passed over, since its loss or gradient was not finite.
        version: the student version that sampled them.
        pairs: pairs that entered the loss.
    """

    attempt: int
    step: int
    rank: int
    row: int
    epoch: int
    prompt_id: str
    policy: str
    version: int
    pairs: int


class LedgerWriter:
    """One rank's file of one attempt."""

    def __init__(self, directory: Path, attempt: int, rank: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._attempt, self._rank = attempt, rank
        self._file = (directory / f"attempt-{attempt:03d}-rank-{rank}.jsonl").open("a")

    def append(self, step: int, groups: Sequence[PairGroup], *, skipped: bool = False) -> None:
        """Write the rows that step `step` trained on this rank.

        Args:
            skipped: the step was passed over: its rows had their turn, and left no trace in the weights.
        """
        for group in groups:
            line = LedgerLine(
                attempt=self._attempt,
                step=step,
                rank=self._rank,
                row=group.index,
                epoch=group.epoch,
                prompt_id=group.prompt_id,
                policy="padding" if not group.real else "skipped" if skipped else group.policy,
                version=group.version,
                pairs=group.pairs if group.real and not skipped else 0,
            )
            self._file.write(json.dumps(asdict(line)) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """On the storage for good: called before the checkpoint that commits these lines."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_ledger(directory: Path) -> Iterator[dict[str, Any]]:
    """Every line of the ledger, attempt by attempt and rank by rank. A line cut by a kill is left out."""
    for file in sorted(directory.glob("attempt-*.jsonl")):
        with file.open() as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def drop_uncommitted(directory: Path, step: int) -> int:
    """Remove lines of steps after `step`, the last one that a checkpoint holds; returns how many."""
    dropped = 0
    for file in sorted(directory.glob("attempt-*.jsonl")):
        lines = file.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            partial = file.with_suffix(".partial")
            partial.write_text("".join(kept))
            partial.replace(file)
            dropped += len(lines) - len(kept)
    return dropped
