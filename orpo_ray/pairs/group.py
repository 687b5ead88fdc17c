"""The stream's unit: one prompt of one epoch with its pairs, as it travels from sampler to journal to trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

# Where a group's negatives came from: the coin may say live, but a student that makes no wrong trace falls back.
# `teacher` stands in the initial student's place where negatives.source says so.
Origin = Literal["live", "initial", "teacher", "none"]

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("epoch", pa.int32()),
        ("prompt_id", pa.string()),
        ("coin", pa.string()),
        ("policy", pa.string()),
        ("version", pa.int32()),
        ("real", pa.bool_()),
        ("prompt", pa.list_(pa.int32())),
        ("chosen", pa.list_(pa.list_(pa.int32()))),
        ("rejected", pa.list_(pa.list_(pa.int32()))),
        ("rejected_logp", pa.list_(pa.float32())),
        ("pair_chosen", pa.list_(pa.int32())),
        ("pair_rejected", pa.list_(pa.int32())),
        ("sampled", pa.int32()),
        ("sampled_tokens", pa.int32()),
        ("wrong", pa.int32()),
        ("distinct", pa.int32()),
    ]
)


@dataclass(frozen=True)
class LiveCounts:
    """What the live student made for one row: all its traces, their tokens, the wrong ones, and how many of those differ."""

    sampled: int = 0
    tokens: int = 0
    wrong: int = 0
    distinct: int = 0


NOT_SAMPLED = LiveCounts()


@dataclass(frozen=True)
class PairGroup:
    """One row of the stream.

    Attributes:
        coin: what the plan's φ coin asked for.
        policy: where the negatives came from in truth.
        version: the student version that sampled them; 0 for the initial student.
        real: False for a row of weight 0.
        prompt: token ids.
        chosen, rejected: token ids of each trace that a pair uses, end token included where there is one.
        rejected_logp: the sampler's own mean log-probability of each rejected trace; NaN where it is not known.
        pair_chosen, pair_rejected: for each pair, indices into chosen and rejected; -1 where there is no negative.
        sampled, sampled_tokens: what the live student made for this row, right traces included; 0 where it was not asked.
        wrong, distinct: how many of those traces count as wrong, and how many of these the ROUGE-L filter kept.
    """

    index: int
    epoch: int
    prompt_id: str
    coin: str
    policy: Origin
    version: int
    real: bool
    prompt: list[int]
    chosen: list[list[int]]
    rejected: list[list[int]]
    rejected_logp: list[float]
    pair_chosen: list[int]
    pair_rejected: list[int]
    sampled: int = 0
    sampled_tokens: int = 0
    wrong: int = 0
    distinct: int = 0

    @property
    def pairs(self) -> int:
        return len(self.pair_chosen)


def build_group(
    *,
    index: int,
    epoch: int,
    prompt_id: str,
    coin: str,
    policy: Origin,
    version: int,
    real: bool,
    prompt: list[int],
    positives: Sequence[list[int]],
    negatives: Sequence[list[int]],
    negatives_logp: Sequence[float],
    matched: Sequence[tuple[int, int]],
    live: LiveCounts = NOT_SAMPLED,
) -> PairGroup:
    """A group that carries only the traces its pairs use, renumbered in the order of their first use."""
    chosen = list(dict.fromkeys(pair[0] for pair in matched))
    rejected = [index for index in dict.fromkeys(pair[1] for pair in matched) if index >= 0]
    return PairGroup(
        index=index,
        epoch=epoch,
        prompt_id=prompt_id,
        coin=coin,
        policy=policy,
        version=version,
        real=real,
        prompt=prompt,
        chosen=[positives[place] for place in chosen],
        rejected=[negatives[place] for place in rejected],
        rejected_logp=[negatives_logp[place] for place in rejected],
        pair_chosen=[chosen.index(pair[0]) for pair in matched],
        pair_rejected=[rejected.index(pair[1]) if pair[1] >= 0 else -1 for pair in matched],
        sampled=live.sampled,
        sampled_tokens=live.tokens,
        wrong=live.wrong,
        distinct=live.distinct,
    )


def to_table(groups: Sequence[PairGroup]) -> pa.Table:
    """Groups as one Arrow table."""
    # Column by column: dataclasses.asdict copies every token id by itself, which was most of what a sampler did.
    return pa.table(
        [pa.array([getattr(group, field.name) for group in groups], field.type) for field in SCHEMA], schema=SCHEMA
    )


def from_table(table: pa.Table) -> list[PairGroup]:
    """The groups of an Arrow table."""
    return [PairGroup(**row) for row in table.select(SCHEMA.names).to_pylist()]
