"""The sampler as it is, which tells when its engine is up and warm: what comes before is no part of its speed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from orpo_ray.engine.live import LiveEngine
from orpo_ray.engine.vllm_engine import Draw
from orpo_ray.sampling.sampler import Sampler, SamplerSpec


@dataclass(frozen=True)
class WarmSpec(SamplerSpec):
    """Attributes:
    warm: a file that the time of day is written to, once the engine has answered its first prompt.
    """

    warm: Path = Path("unset")


class WarmSampler(Sampler):
    _spec: WarmSpec

    async def _engine(self) -> LiveEngine:
        live = await super()._engine()
        async with self._starting:
            if not self._spec.warm.exists():
                await live.engine.sample(self._source[0].prompt, Draw(k=1, temperature=1.0, max_tokens=2, seed=0))
                self._spec.warm.write_text(str(time.time()))
        return live
