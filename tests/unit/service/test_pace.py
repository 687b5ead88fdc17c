"""Readers look the more seldom the more they are, and all of them together no oftener than they may."""

from itertools import pairwise

import pytest

from orpo_ray.service.pace import LATEST_S, LOOKS_PER_S, SOONEST_S, Pace


def simulate(readers: int, seconds: float) -> list[float]:
    """When each look was made, where every reader does as it is told."""
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    due, looks = [0.0] * readers, []
    while min(due) < seconds:
        reader = due.index(min(due))
        now[0] = due[reader]
        looks.append(now[0])
        due[reader] = now[0] + pace.again_s()
    return looks


def test_one_reader_looks_as_soon_as_it_may() -> None:
    assert len(simulate(1, 60)) == 60 / SOONEST_S


@pytest.mark.parametrize("readers", [10, 50, 110])
def test_many_share_what_there_is(readers: int) -> None:
    looks = [at for at in simulate(readers, 600) if at >= 60]
    assert len(looks) == pytest.approx(540 * LOOKS_PER_S, rel=0.02)
    # Evenly: not all of them at the same moment.
    assert max(later - sooner for sooner, later in pairwise(looks)) < 2 / LOOKS_PER_S


def test_whoever_asks_without_end_makes_nobody_wait_for_long() -> None:
    pace = Pace(clock=lambda: 0.0)
    assert max(pace.again_s() for _ in range(10_000)) == LATEST_S


def test_readers_that_are_gone_are_forgotten() -> None:
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    for _ in range(100):
        pace.again_s()
    now[0] = 60.0
    assert pace.again_s() == SOONEST_S
