"""The Ray Data actor that asks the teacher: block numbers in, the completions of their prompts out."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from orpo_ray.pairs.draw import draw
from orpo_ray.tasks import Row, Task
from orpo_ray.teacher.access import TeacherAccess
from orpo_ray.teacher.protocol import Sample, Teacher

BLOCK_PROMPTS = 16
"""Prompts of one part of the trace store: asked side by side, and lost together where a kill strikes."""

BLOCKS = pa.schema([("asking", pa.int64()), ("block", pa.int64())])
"""What is to be asked: blocks of prompts, each of one of the caller's `askings`."""

ASKED = pa.schema(
    [
        ("asking", pa.int64()),
        ("block", pa.int64()),
        ("position", pa.int64()),
        ("texts", pa.list_(pa.string())),
        ("truncated", pa.list_(pa.bool_())),
    ]
)
"""What was answered, one line a prompt: its place among the rows, and its completions in the order of their seeds."""


@dataclass(frozen=True)
class Asking:
    """What the teacher is asked for.

    Attributes:
        task: its rows are the prompts; block b holds rows b × BLOCK_PROMPTS and on.
        k, temperature, top_p, max_tokens: as in `Teacher.sample`.
        run_seed: the run's seed.
    """

    task: Task
    k: int
    temperature: float
    top_p: float
    max_tokens: int
    run_seed: int

    @property
    def blocks(self) -> int:
        return -(-len(self.task.rows()) // BLOCK_PROMPTS)

    def rows(self, block: int) -> Sequence[Row]:
        first = block * BLOCK_PROMPTS
        return self.task.rows()[first : first + BLOCK_PROMPTS]

    def seed(self, row: Row) -> int:
        """Seeds a prompt's traces: 31 bits, as vLLM takes them; a function of run and prompt, whatever the order."""
        return draw(self.run_seed, "teacher", row.id) >> 33


class TeacherCaller:
    """The callable class of `Dataset.map_batches`. Several blocks are in flight at once, so the teacher never drains.

    Args:
        askings: what may be asked; a block names one of them by its place.
        clients: how many callers share the bound on requests in flight.
    """

    def __init__(self, askings: Sequence[Asking], access: TeacherAccess, clients: int) -> None:
        self._askings = askings
        self._access = access
        self._clients = clients
        self._teacher: Teacher | None = None

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """Lines of `BLOCKS` in, one table of `ASKED` a block out."""
        for line in batch.to_pylist():
            yield await self._ask(line["asking"], line["block"])

    async def _ask(self, which: int, block: int) -> pa.Table:
        # No await comes between the test and the assignment, so no two blocks connect.
        if self._teacher is None:
            self._teacher = self._access.connect(self._clients)
        asking = self._askings[which]
        answers = await asyncio.gather(*(_sample(self._teacher, asking, row) for row in asking.rows(block)))
        lines: list[dict[str, Any]] = [
            {
                "asking": which,
                "block": block,
                "position": block * BLOCK_PROMPTS + place,
                "texts": [sample.text for sample in samples],
                "truncated": [sample.truncated for sample in samples],
            }
            for place, samples in enumerate(answers)
        ]
        return pa.Table.from_pylist(lines, schema=ASKED)


async def _sample(teacher: Teacher, asking: Asking, row: Row) -> list[Sample]:
    return await teacher.sample(
        row,
        asking.task.messages(row),
        k=asking.k,
        temperature=asking.temperature,
        top_p=asking.top_p,
        max_tokens=asking.max_tokens,
        seed=asking.seed(row),
    )
