"""What negatives a run trained on, by epoch: how diverse, and how near a right answer.

Read from the journal, so it covers every recipe that has negatives, wherever they came from. Overlap is ROUGE-L's F on the
student's token ids: no text has to be decoded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
from rapidfuzz.distance import LCSseq

from orpo_ray.pairs import PairGroup, from_table

GROUPS = 2000
"""Most groups of an epoch that are looked at, evenly spread over it."""


@dataclass(frozen=True)
class NegativeMeasures:
    """One epoch's negatives.

    Attributes:
        diversity: mean over prompts of 1 - ROUGE-L between two of a prompt's negatives; None where no prompt has two.
        nearness: mean over negatives of ROUGE-L with the nearest of the prompt's right traces; None without negatives.
    """

    diversity: float | None
    nearness: float | None


def negatives_by_epoch(journal: Path, global_batch: int, steps_per_epoch: int) -> dict[int, NegativeMeasures]:
    """Measures of each epoch that the journal holds; an empty mapping where it holds none."""
    steps: dict[int, list[Path]] = {}
    for directory in sorted(journal.glob("step-*")):
        step = int(directory.name.removeprefix("step-"))
        steps.setdefault(1 + step // steps_per_epoch, []).append(directory)
    every = max(1, steps_per_epoch * global_batch // GROUPS)
    return {epoch: _measured(list(_groups(found, every))) for epoch, found in steps.items()}


def _groups(steps: Sequence[Path], every: int) -> Iterator[PairGroup]:
    for step in steps:
        for block in sorted(step.glob("rows-*.parquet")):
            yield from (group for group in from_table(pq.read_table(block)) if group.real and group.index % every == 0)


def _measured(groups: Sequence[PairGroup]) -> NegativeMeasures:
    diversity = [
        fmean(1 - overlap(a, b) for a, b in combinations(group.rejected, 2))
        for group in groups
        if len(group.rejected) > 1
    ]
    nearness = [max(overlap(wrong, right) for right in group.chosen) for group in groups for wrong in group.rejected]
    return NegativeMeasures(fmean(diversity) if diversity else None, fmean(nearness) if nearness else None)


def overlap(a: Sequence[int], b: Sequence[int]) -> float:
    """ROUGE-L's F of two token lists, 0 to 1."""
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a and b else 0.0
