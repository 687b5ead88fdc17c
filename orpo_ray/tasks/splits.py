"""Cuts one pool of rows into train, validation and test."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from orpo_ray.errors import DataError
from orpo_ray.tasks.task import Row, Task

# A count of rows, or None: all that the other parts leave.
SplitSize: TypeAlias = int | None

_HELD_OUT = ("test", "validation")


def question_key(row: Row) -> str:
    """What makes two rows the same question: its text without case and spacing, whatever the options are."""
    question = row.data.get("question", row.data.get("question_stem"))
    if not isinstance(question, str):
        return json.dumps(row.data, sort_keys=True, default=str)
    return " ".join(question.casefold().split())


@dataclass(frozen=True)
class OtherSplits:
    """Splits that have data of their own, whose questions a pool of rows must not hold. They are read when first asked."""

    tasks: tuple[Task, ...] = ()

    def apart(self, rows: Sequence[Row]) -> list[Row]:
        """The rows whose questions none of these splits holds."""
        questions = {question_key(row) for task in self.tasks for row in task.rows()}
        return [row for row in rows if question_key(row) not in questions] if questions else list(rows)


NO_OTHERS = OtherSplits()


def part_of(
    rows: Sequence[Row], split: str, sizes: Mapping[str, SplitSize] | None, seed: int, others: OtherSplits
) -> tuple[list[Row], int]:
    """The rows of one part (all of them where `sizes` is None), and how many rows of the pool `others` hold too.

    Raises:
        DataError: there are not enough rows.
    """
    pool = others.apart(rows)
    left_out = len(rows) - len(pool)
    try:
        return (pool if sizes is None else split_rows(pool, sizes, seed)[split]), left_out
    except DataError as error:
        if not left_out:
            raise
        raise DataError(f"{error}; {left_out} more are left out, since another split holds their questions") from None


def split_rows(
    rows: Iterable[Row],
    sizes: Mapping[str, SplitSize],
    seed: int,
    *,
    key: Callable[[Row], str] = question_key,
) -> dict[str, list[Row]]:
    """Disjoint parts of exactly the asked sizes, each in the order of `rows`, its rows' `split` set to its name.

    Which part a question falls into depends on a hash of (seed, key) and the sizes, not on the order of the rows; rows with
    the same key go into the same part. Held-out parts are filled first, so that asking for more training rows leaves them
    as they were. One part at most may have the size None: all that is left.

    Raises:
        DataError: there are not enough rows.
    """
    rows = list(rows)
    by_question: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_question.setdefault(key(row), []).append(index)
    shuffled = sorted(by_question, key=lambda question: hashlib.blake2b(f"{seed}\0{question}".encode()).digest())
    pools = [by_question[question] for question in shuffled]

    # A part of size None takes what is left, so it comes last; the order of sort is stable for the others.
    order = sorted(sizes, key=lambda name: (sizes[name] is None, name not in _HELD_OUT))
    if sum(size is None for size in sizes.values()) > 1:
        raise ValueError("only one part can take all that is left")
    parts: dict[str, list[Row]] = {}
    for name in order:
        size = sizes[name]
        taken: list[int] = []
        left: list[list[int]] = []
        for pool in pools:
            # A group of equal questions that would overfill the part is left for another.
            if size is None or len(taken) + len(pool) <= size:
                taken += pool
            else:
                left.append(pool)
        if size is not None and len(taken) < size:
            asked = ", ".join(f"{part} {'the rest' if count is None else count}" for part, count in sizes.items())
            raise DataError(f"not enough rows: {asked} asked, and there are {len(rows)} ({len(by_question)} questions)")
        parts[name] = [replace(rows[index], split=name) for index in sorted(taken)]
        pools = left
    return {name: parts[name] for name in sizes}
