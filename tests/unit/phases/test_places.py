"""How many workers and samplers an attempt begins with, on clusters that are counted by hand."""

import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.errors import WaitTimeout
from orpo_ray.phases.fit import Demand
from orpo_ray.phases.growth import Growth
from orpo_ray.phases.needs import AUTOSCALED
from orpo_ray.phases.places import SETTLE_S, Places, find_places, more_places


def config(workers: int = 4, samplers: int = 2, **train: Any) -> RunConfig:
    return parse_config(
        {
            "task": {"name": "arithmetic"},
            "teacher": {"model": "models/teacher"},
            "student": {"model": "models/student"},
            "train": {"workers": workers, "global_batch": 24, **train},
            "resources": {"samplers": samplers, "grow_every_s": 0.01},
            "limits": {"start_s": 600, "place_s": 120},
        }
    )


class Free:
    """A cluster of so many free CPUs, which places what it is asked in turn; and a clock that its waits move."""

    def __init__(self, cpus: float) -> None:
        self.cpus, self.now, self.waits = cpus, 0.0, list[float]()

    def ask(self, demands: Sequence[Demand], seconds: float) -> list[bool]:
        left, placed = self.cpus, []
        for demand in demands:
            needed = sum(bundle.cpus for bundle in demand.bundles)
            placed.append(needed <= left)
            left -= needed if placed[-1] else 0
        self.waits.append(seconds)
        self.now += 0 if all(placed) else seconds
        return placed

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("cpus", "found"),
    [
        (7, Places(4, 2)),  # four workers, a data task, two samplers
        (6, Places(4, 1)),
        (5, Places(3, 1)),  # a worker gives way to the one sampler that there must be
        (4, Places(2, 1)),
        (3, Places(1, 1)),
    ],
)
def test_workers_come_first_but_for_the_samplers_that_there_must_be(cpus: float, found: Places) -> None:
    free = Free(cpus)
    assert find_places(config(workers_min=1), free.ask, clock=free.clock) == found


def test_a_size_that_blocks_do_not_fit_is_passed_over() -> None:
    """Of 24 rows in blocks of 4, 6 blocks: 3 ranks and 2, but not 4 or 5."""
    free = Free(6)
    elastic = parse_config(
        config(workers=6, samplers=1, workers_min=1).model_dump(by_alias=True) | {"resources": {"block_rows": 4}}
    )
    assert elastic.world_sizes == [6, 3, 2, 1]
    assert find_places(elastic, free.ask, clock=free.clock) == Places(3, 1)


def test_all_are_waited_for_first_and_less_is_found_soon() -> None:
    free = Free(4)
    find_places(config(workers_min=1), free.ask, clock=free.clock)
    assert free.waits == [120, SETTLE_S, SETTLE_S]


def test_an_autoscaler_has_the_time_to_bring_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTOSCALED, "1")
    free = Free(3)
    find_places(config(workers_min=1), free.ask, clock=free.clock)
    assert free.waits[0] == 600


def test_a_group_that_is_not_elastic_waits_for_all_its_workers_and_then_says_what_it_waited_for() -> None:
    free = Free(5)
    with pytest.raises(WaitTimeout) as raised:
        find_places(config(), free.ask, clock=free.clock)
    assert str(raised.value) == (
        "limits.start_s: no place within 600 s for train workers (4 × 1 CPU), data task (1 × 1 CPU), sampler (1 × 1 CPU) "
        "beside what the cluster does already; free or add nodes, or lower train.workers_min or what `resources` asks"
    )
    assert free.now >= 600


def test_seed_asks_for_no_train_workers() -> None:
    free = Free(3)
    assert find_places(config(), free.ask, "SEED", free.clock).samplers == 2


@pytest.mark.parametrize(
    ("has", "cpus", "more"),
    [
        (Places(2, 2), 2, True),  # a third worker, and the data task
        (Places(2, 2), 1, False),
        (Places(4, 1), 2, True),
        (Places(4, 1), 1, False),
        (Places(4, 2), 9, False),
    ],
)
def test_more_are_looked_for_beside_what_there_is(has: Places, cpus: float, more: bool) -> None:
    assert more_places(config(workers_min=1), has, Free(cpus).ask) == more


def test_growth_looks_until_it_finds() -> None:
    free, found, asked = Free(0), list[float](), list[float]()

    def settled() -> bool:
        """Not while it has had a look at no more than 2 CPUs."""
        free.cpus += 1
        return free.cpus > 2

    def ask(demands: Sequence[Demand], seconds: float) -> list[bool]:
        asked.append(free.cpus)
        return free.ask(demands, seconds)

    def tell() -> None:
        found.append(free.cpus)

    with Growth(config(workers_min=1), Places(2, 2), ask, settled=settled, found=tell) as growth:
        assert growth._thread is not None
        growth._thread.join(timeout=30)
    assert (asked, found) == ([3], [3])


def test_growth_looks_for_nothing_where_all_are_there() -> None:
    def never(demands: Sequence[Demand], seconds: float) -> list[bool]:
        raise AssertionError

    with Growth(config(), Places(4, 2), never, settled=lambda: True, found=lambda: None) as growth:
        assert growth._thread is None


def test_growth_that_was_left_holds_nothing_of_the_attempt() -> None:
    """The weight board lives as long as somebody has a handle of it."""

    class Board:
        def tell(self) -> None: ...

    board = Board()
    still_there = weakref.ref(board)
    with Growth(config(), Places(4, 2), lambda *_: [], settled=lambda: True, found=board.tell):
        pass
    del board
    assert still_there() is None
