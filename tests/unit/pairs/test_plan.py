"""The plan is a function of (seed, epoch, prompt id)."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.config import Geometry
from orpo_ray.pairs import Plan
from orpo_ray.pairs.draw import permuted, shuffled, uniform


def plan(
    prompts: int = 100, *, phi: float = 0.5, seed: int = 0, epochs: int = 3, batch: int = 32, ranks: int = 2
) -> Plan:
    geometry = Geometry(
        global_batch=batch, ranks=ranks, block_rows=4, prompts=prompts, epochs=epochs, refresh_steps=None
    )
    return Plan(seed, [phi] * epochs, geometry, lambda position: f"prompt-{position}")


def rows(plan: Plan) -> list:
    return [plan.row(index) for index in range(plan.geometry.rows)]


def test_each_epoch_trains_each_prompt_once_and_ends_on_a_whole_batch() -> None:
    drawn = rows(plan(100))
    assert len(drawn) == 3 * 128
    for epoch in (1, 2, 3):
        of_epoch = [row for row in drawn if row.epoch == epoch]
        assert sorted(row.position for row in of_epoch if row.real) == list(range(100))
        assert [row.real for row in of_epoch] == [True] * 100 + [False] * 28


def test_epochs_differ_in_order_and_coins() -> None:
    drawn = rows(plan(200))
    first = {row.prompt_id: (row.index, row.policy, row.seed) for row in drawn if row.epoch == 1 and row.real}
    second = {row.prompt_id: (row.index - 224, row.policy, row.seed) for row in drawn if row.epoch == 2 and row.real}
    assert sum(first[key][0] == second[key][0] for key in first) < 10
    assert 60 < sum(first[key][1] != second[key][1] for key in first) < 140
    assert all(first[key][2] != second[key][2] for key in first)


def test_any_row_can_be_asked_for_alone() -> None:
    assert rows(plan(77))[123] == plan(77).row(123)


@pytest.mark.parametrize("phi", [0.0, 0.25, 0.5, 1.0])
def test_coins_fall_live_with_probability_phi(phi: float) -> None:
    real = [row for row in rows(plan(2000, phi=phi, epochs=5)) if row.real]
    live = sum(row.policy == "live" for row in real)
    deviation = math.sqrt(len(real) * phi * (1 - phi))
    assert abs(live - phi * len(real)) <= 4 * deviation


def test_padding_rows_cost_no_sampling() -> None:
    assert all(row.policy == "initial" for row in rows(plan(100, phi=1.0)) if not row.real)


@given(size=st.integers(1, 300), key=st.integers(0, 2**64 - 1))
def test_permuted_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permuted(place, size, key) for place in range(size)) == list(range(size))


def test_permutations_are_not_biased() -> None:
    # Chi-square over where place 0 goes, 16 places and 4,800 keys: the 99.9 % quantile for 15 degrees is 37.7.
    keys = [int(uniform(7, "key", n) * 2**64) for n in range(4800)]
    found = Counter(permuted(0, 16, key) for key in keys)
    assert sum((found[place] - 300) ** 2 / 300 for place in range(16)) < 37.7


def test_shuffled_keeps_every_item() -> None:
    assert sorted(shuffled(9, 1, "chosen", 2, "p")) == list(range(9))
    assert shuffled(9, 1, "chosen", 2, "p") != shuffled(9, 1, "chosen", 3, "p")
