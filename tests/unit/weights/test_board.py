"""The board without Ray: who is let in, and what the dead leave behind."""

import asyncio

import pytest

from orpo_ray.config import Geometry
from orpo_ray.errors import StaleAttemptError
from orpo_ray.weights import StalenessGate, Version
from orpo_ray.weights.board import AttemptStart, WeightBoard

# Two steps an epoch of 8 rows each; a version after each step.
GEOMETRY = Geometry(global_batch=8, ranks=2, block_rows=4, prompts=16, epochs=3, refresh_steps=1)


def version(number: int) -> Version:
    return Version(number, f"v{number}", step=number)


async def started() -> WeightBoard:
    board = WeightBoard(version(0), StalenessGate(GEOMETRY, max_staleness=0))
    await board.start_attempt(AttemptStart(1, 0, None), version(0), [])
    return board


def test_what_a_killed_sampler_still_asks_for_holds_no_version() -> None:
    """The call of the dead process waits on the board, which the gate would let in with the next version."""

    async def scene() -> list[str]:
        board = await started()
        await board.enter("sampler-a", "sampler-a.1")
        assert (await board.admit(1, "sampler-a.1", 7, timeout_s=10)).number == 0
        waiting = asyncio.create_task(board.admit(1, "sampler-a.1", 15, timeout_s=10))
        await asyncio.sleep(0)
        await board.enter("sampler-a", "sampler-a.2")
        assert await board.publish(1, version(1)) == []
        with pytest.raises(StaleAttemptError, match=r"sampler-a\.1 is dead"):
            await waiting
        with pytest.raises(StaleAttemptError, match=r"sampler-a\.1 is dead"):  # on its way when the process died
            await board.admit(1, "sampler-a.1", 15, timeout_s=10)
        assert (await board.admit(1, "sampler-a.2", 15, timeout_s=10)).number == 1
        await board.release("sampler-a.2", "v1")
        return await board.publish(1, version(2))

    assert asyncio.run(scene()) == ["v1"]


def test_another_samplers_holds_are_left_alone() -> None:
    async def scene() -> list[str]:
        board = await started()
        for actor in ("sampler-a", "sampler-b"):
            await board.enter(actor, f"{actor}.1")
        await board.publish(1, version(1))
        await board.admit(1, "sampler-b.1", 15, timeout_s=10)
        await board.enter("sampler-a", "sampler-a.2")
        return await board.publish(1, version(2))

    assert asyncio.run(scene()) == []
