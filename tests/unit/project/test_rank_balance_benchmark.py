"""What the rank-balance benchmark compares, and how it weighs it; nothing is computed here."""

import random
from typing import Any

import pytest

from benchmarks import rank_balance


@pytest.mark.parametrize(
    ("loads", "balance"),
    [
        ([[2.0, 2.0], [2.0, 2.0]], 1.0),
        ([[3.0], [1.0]], 1.5),
        ([[3.0, 3.0], [3.0]], 4 / 3),  # the second rank waits in the second micro-step
    ],
)
def test_a_rank_that_waits_counts(loads: list[list[float]], balance: float) -> None:
    assert rank_balance.spread(loads) == pytest.approx(balance)


@pytest.mark.parametrize("side", [rank_balance.kept, rank_balance.shared])
def test_both_sides_compute_the_same_groups_within_the_budget(side: Any) -> None:
    groups = rank_balance.draw(random.Random(0), "gsm8k", 16)
    budget = max(group.unique_tokens for group in groups)
    given = side(groups, 3, budget)
    computed = [group for micro_batches in given for held in micro_batches for group in held]
    assert sorted(group.unique_tokens for group in computed) == sorted(group.unique_tokens for group in groups)
    assert all(
        sum(group.unique_tokens for group in held) <= budget for micro_batches in given for held in micro_batches
    )
