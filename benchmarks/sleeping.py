"""Engines that sleep where they would sample: what two busy cores cannot show, how sampling and training overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from orpo_ray.engine.vllm_engine import Completion, Draw
from tests.tiny.fake_engine import FakeEngine, FakeEngineSampler, FakeEngineSpec


class SleepingEngine(FakeEngine):
    """Takes its seconds for each block, one block after another however many are in flight, as an engine that is full does."""

    def __init__(self, spec: FakeEngineSpec) -> None:
        super().__init__(spec)
        self._full = asyncio.Lock()

    async def sample_all(self, prompts: Sequence[Sequence[int]], draws: Sequence[Draw]) -> list[list[Completion]]:
        async with self._full:
            return await super().sample_all(prompts, draws)


class SleepingSampler(FakeEngineSampler):
    """The sampler as it is, on an engine that sleeps."""

    engine = SleepingEngine
