"""A sampler's side of a weight sync: wait at the board for a version, load and check it, and sample one token."""

from __future__ import annotations

import time
from typing import Any

from orpo_ray.config.models import EngineConfig
from orpo_ray.engine.vllm_engine import Draw, Engine
from orpo_ray.weights.loading import load_version

_LIMIT_S = 300.0


class FirstToken:
    """An actor with one engine; Ray calls it."""

    def __init__(self, model: str, config: EngineConfig, threads: int, prompt: list[int]) -> None:
        self._model, self._config, self._threads, self._prompt = model, config, threads, prompt

    async def start(self) -> float:
        """Start the engine, or a new one in its place; seconds to its first token."""
        began = time.monotonic()
        self._engine = Timed(await Engine.start(self._model, self._config, threads=self._threads))
        await self._token()
        return time.monotonic() - began

    async def restart(self, directory: str) -> float:
        """What it costs to have an engine on other weights by starting a new one, in a process that has all libraries."""
        self._engine.engine.stop()
        self._model = directory
        return await self.start()

    async def after(self, board: Any, last_row: int) -> dict[str, float]:
        """Wait until `last_row` may be sampled, and sample with the version that the board gives; times of day."""
        version = await board.admit.remote(1, "sampler", last_row, _LIMIT_S)
        told = time.time()
        await load_version(self._engine, version, _LIMIT_S)
        checked = time.time()
        await self._token()
        first_token = time.time()
        await board.release.remote("sampler", version.path)
        return {"told": told, "loaded": self._engine.loaded, "checked": checked, "first_token": first_token}

    async def _token(self) -> None:
        await self._engine.engine.sample(self._prompt, Draw(k=1, temperature=0.0, max_tokens=1, seed=0))


class Timed:
    """The engine, as `load_version` asks for one; it keeps the time of day when its last reload was over."""

    loaded = 0.0

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def dtype(self) -> str:
        return self.engine.dtype

    async def reload(self, directory: str, label: str, timeout_s: float) -> None:
        await self.engine.reload(directory, label, timeout_s)
        self.loaded = time.time()

    async def receive(self, address: str, label: str, timeout_s: float) -> None:
        await self.engine.receive(address, label, timeout_s)
        self.loaded = time.time()

    async def score(self, prompt: list[int], trace: list[int]) -> list[float]:
        return await self.engine.score(prompt, trace)
