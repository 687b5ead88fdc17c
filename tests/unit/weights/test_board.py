"""The board without Ray: who is let in, and what the dead leave behind."""

import asyncio

import pytest

from orpo_ray.config import Geometry
from orpo_ray.errors import SamplerLostError, StaleAttemptError, WaitTimeout
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


class Clock:
    """In place of the board's `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("orpo_ray.weights.board.time", clock)
    return clock


def test_a_sampler_of_which_nothing_is_heard_is_lost(clock: Clock) -> None:
    async def scene() -> None:
        board = await started()
        for actor in ("sampler-a", "sampler-b"):
            await board.enter(actor, f"{actor}.1")
        clock.now += 50
        await board.alive("sampler-b.1")
        await board.check_rows(1, place_s=60, still_s=1000)
        clock.now += 20
        await board.check_rows(1, place_s=60, still_s=1000)

    with pytest.raises(SamplerLostError) as raised:
        asyncio.run(scene())
    assert str(raised.value) == (
        "limits.place_s: nothing has been heard of sampler-a for 70 s, longer than 60 s, and rows are missing that "
        "nobody else brings. trainer, last heard of: attempt 1 began at step 0 70 s ago; samplers, last heard of: sampler-a.1 70 s ago, "
        "sampler-b.1 20 s ago; at the gate: nobody; sampling: nobody; to be evaluated: nobody"
    )


def test_a_sampler_that_is_back_is_not_lost(clock: Clock) -> None:
    async def scene() -> None:
        board = await started()
        await board.enter("sampler-a", "sampler-a.1")
        clock.now += 50
        await board.enter("sampler-a", "sampler-a.2")
        clock.now += 50
        await board.check_rows(1, place_s=60, still_s=1000)

    asyncio.run(scene())


def test_samplers_at_their_places_are_counted(clock: Clock) -> None:
    async def scene() -> list[int]:
        board = await started()
        counts = [await board.samplers(1)]
        for actor in ("sampler-a", "sampler-b"):
            await board.enter(actor, f"{actor}.1")
        counts.append(await board.samplers(1))
        clock.now += 20
        await board.alive("sampler-b.1")
        counts.append(await board.samplers(1))
        await board.enter("sampler-a", "sampler-a.2")
        return [*counts, await board.samplers(1)]

    assert asyncio.run(scene()) == [0, 2, 1, 2]


def test_samplers_that_live_and_do_nothing_are_waited_for_so_long(clock: Clock) -> None:
    async def scene() -> None:
        board = await started()
        await board.enter("sampler-a", "sampler-a.1")
        clock.now += 50
        await board.admit(1, "sampler-a.1", 7, timeout_s=10)
        clock.now += 101
        await board.alive("sampler-a.1")
        await board.check_rows(1, place_s=60, still_s=200)
        await board.check_rows(1, place_s=60, still_s=100)

    with pytest.raises(WaitTimeout) as raised:
        asyncio.run(scene())
    assert str(raised.value).startswith(
        "limits.start_s, reload_s and generate_s: the train workers wait for rows, and no sampler has begun or ended a "
        "block for 101 s, longer than 100 s. trainer, last heard of: attempt 1 began"
    )
    assert "sampling: sampler-a.1 with v0;" in str(raised.value)


def test_a_group_is_asked_to_end_in_its_own_attempt_only() -> None:
    async def scene() -> list[str | None]:
        board = await started()
        said = [await board.ending(1)]
        await board.end_attempt(1, "more places")
        said.append(await board.ending(1))
        await board.start_attempt(AttemptStart(2, 0, None), version(0), [])
        said.append(await board.ending(2))
        await board.end_attempt(1, "more places")
        return [*said, await board.ending(2)]

    assert asyncio.run(scene()) == [None, "more places", None, None]
