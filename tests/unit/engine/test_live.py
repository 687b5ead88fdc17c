"""One engine under blocks of different versions: none mixes two, and a reload happens once."""

import asyncio
from typing import Any

import pytest

from orpo_ray.engine.live import LiveEngine


class RecordingEngine:
    """A fake engine that takes a while to reload, and fails where it is told to."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fails = False

    async def reload(self, directory: str, label: str, timeout_s: float) -> None:
        self.events.append(f"reload {label} from {directory}")
        await asyncio.sleep(0.01)
        if self.fails:
            raise OSError("the storage is gone")
        self.events.append(f"reloaded {label}")


def live_engine(version: int = 0) -> tuple[LiveEngine, RecordingEngine]:
    recording: Any = RecordingEngine()
    return LiveEngine(recording, version), recording


async def block(live: LiveEngine, version: int, seconds: float, events: list[str]) -> int:
    async with live.at(version, lambda: live.engine.reload(f"v{version}", str(version), 1)) as used:
        events.append(f"begin {used}")
        await asyncio.sleep(seconds)
        assert live.version == used, "the weights changed under a block"
        events.append(f"end {used}")
        return used


def test_a_reload_waits_for_the_blocks_in_flight_and_later_blocks_for_the_reload() -> None:
    async def scene() -> list[str]:
        live, engine = live_engine()
        await asyncio.gather(*(block(live, version, 0.02, engine.events) for version in (0, 0, 1, 1)))
        return engine.events

    assert asyncio.run(scene()) == [
        *["begin 0"] * 2, *["end 0"] * 2, "reload 1 from v1", "reloaded 1", *["begin 1"] * 2, *["end 1"] * 2,
    ]  # fmt: skip


def test_blocks_of_one_version_run_side_by_side() -> None:
    async def scene() -> list[str]:
        live, engine = live_engine(version=3)
        await asyncio.gather(*(block(live, 3, 0.02, engine.events) for _ in range(3)))
        return engine.events

    assert asyncio.run(scene()) == ["begin 3"] * 3 + ["end 3"] * 3


def test_a_block_admitted_with_an_older_version_takes_the_newer_one_that_is_loaded() -> None:
    async def scene() -> tuple[int, int]:
        live, engine = live_engine()
        await block(live, 2, 0, engine.events)
        return await block(live, 1, 0, engine.events), live.reloads

    assert asyncio.run(scene()) == (2, 1)


def test_a_block_that_fails_does_not_hold_up_the_next_reload() -> None:
    async def scene() -> int:
        live, engine = live_engine()
        with pytest.raises(ZeroDivisionError):
            async with live.at(0, never):
                _ = 1 / 0
        async with asyncio.timeout(1):
            return await block(live, 1, 0, engine.events)

    assert asyncio.run(scene()) == 1


def test_after_a_load_that_failed_the_next_block_loads_its_own_weights() -> None:
    """Half-loaded weights would sample under the name of the version before."""

    async def scene() -> tuple[list[str], int]:
        live, engine = live_engine()
        engine.fails = True
        with pytest.raises(OSError, match="the storage is gone"):
            await block(live, 1, 0, engine.events)
        engine.fails = False
        engine.events.clear()
        return engine.events, await block(live, 0, 0, engine.events)

    assert asyncio.run(scene()) == (["reload 0 from v0", "reloaded 0", "begin 0", "end 0"], 0)


async def never() -> None:
    raise AssertionError("nothing is to be loaded")
