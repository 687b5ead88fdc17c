"""An engine whose weights change beneath it: every trace is sampled by one version, wholly.

Blocks in flight share the engine as readers; a reload waits for them, and blocks that want a newer version wait for the
reload. So the batch drains once a version, and never mixes two.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from orpo_ray.engine.vllm_engine import Engine


class LiveEngine:
    """Shares one engine between blocks of possibly different versions."""

    def __init__(self, engine: Engine, version: int) -> None:
        self.engine = engine
        self.version: int | None = version
        self.reloads = 0
        self._active = 0
        self._idle = asyncio.Condition()
        self._loading = asyncio.Lock()

    @asynccontextmanager
    async def at(self, version: int, load: Callable[[], Awaitable[None]]) -> AsyncIterator[int]:
        """Use the engine at `version` or newer; yields the version that samples.

        A newer one is taken where another block has loaded it already: it is fresher, and was admitted by the gate.

        Args:
            load: gives the engine the weights of `version`. Where it fails, nobody knows which weights there are, and
                the next block loads its own.
        """
        async with self._loading:
            if self.version is None or version > self.version:
                await self._drain()
                self.version = None
                await load()
                self.version = version
                self.reloads += 1
            self._active += 1
            used = self.version
        try:
            yield used
        finally:
            async with self._idle:
                self._active -= 1
                self._idle.notify_all()

    async def _drain(self) -> None:
        async with self._idle:
            await self._idle.wait_for(lambda: self._active == 0)
