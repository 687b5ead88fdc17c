"""A sampler that costs nearly nothing: it asks the gate for each block, and gives out groups that were made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from orpo_ray.pairs import SourcePrompt, build_group, match, to_table, write_pair_source
from orpo_ray.sampling.sampler import Sampler, SamplerSpec

PROMPT, CHOSEN, REJECTED, PAIRS = 74, 131, 94, 2
"""Tokens of each, as GSM8K's have on average, and pairs of a group."""


class GateOnlySampler(Sampler):
    """The sampler without its work: what is left is what the stream itself costs."""

    def __init__(self, spec: SamplerSpec, board: Any) -> None:
        super().__init__(spec, board)
        self._made = ready_made(self._geometry.block_rows)

    async def _block(self, indices: list[int]) -> pa.Table:
        version = await self._admit(indices[-1])
        await self._board.release.remote(self._reader, version.path)
        return self._made.set_column(0, self._made.schema.field(0), pa.array(indices, pa.int64()))


def ready_made(rows: int) -> pa.Table:
    """`rows` groups of GSM8K's lengths: their number, not their content, is what matters."""
    prompt = one_prompt("0")
    return to_table(
        [
            build_group(
                index=index,
                epoch=1,
                prompt_id=prompt.prompt_id,
                coin="live",
                policy="live",
                version=0,
                real=True,
                prompt=prompt.prompt,
                positives=prompt.positives,
                negatives=prompt.negatives,
                negatives_logp=[-1.0] * PAIRS,
                matched=match(PAIRS, PAIRS, PAIRS, 0, 1, prompt.prompt_id),
            )
            for index in range(rows)
        ]
    )


def one_prompt(prompt_id: str) -> SourcePrompt:
    return SourcePrompt(
        prompt_id, "{}", list(range(PROMPT)), [list(range(CHOSEN))] * PAIRS, [list(range(REJECTED))] * PAIRS
    )


def write_ids(directory: Path, count: int) -> None:
    """A pair source of `count` prompts that have an id and nothing else: the gate and the plan ask for no more."""
    write_pair_source(directory, (SourcePrompt(f"prompt-{at}", "{}", [], [], []) for at in range(count)))
