"""φ of each epoch, as a function of the options and of what was measured."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.config import Geometry, parse_config
from orpo_ray.config.method import PolicyConfig
from orpo_ray.pairs import Diversity, PhiRule, Plan
from orpo_ray.pairs.phi import scheduled
from tests.unit.config.data import changed


def geometry(epochs: int = 5, refresh: int | None = None) -> Geometry:
    return Geometry(global_batch=8, ranks=2, block_rows=4, prompts=32, epochs=epochs, refresh_steps=refresh)


def rule(epochs: int = 5, refresh: int | None = None, initial: Diversity | None = None, **policy: object) -> PhiRule:
    config = parse_config(changed({f"policy.{name}": value for name, value in policy.items()}))
    return PhiRule.of(config, geometry(epochs, refresh), initial or Diversity(10, 8))


def test_without_a_schedule_every_epoch_has_the_same() -> None:
    assert rule(phi=0.3).phis() == (0.3,) * 5


def test_linear_and_cosine_go_from_first_to_last() -> None:
    linear = scheduled(PolicyConfig(phi=1.0, phi_schedule="linear", phi_end=0.0), 5)
    assert linear == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))
    cosine = scheduled(PolicyConfig(phi=0.2, phi_schedule="cosine", phi_end=0.8), 5)
    # 0.2 + 0.6 (1 - cos(πt))/2 at t = 0, ¼, ½, ¾, 1
    assert cosine == pytest.approx((0.2, 0.2878679656, 0.5, 0.7121320344, 0.8))
    assert scheduled(PolicyConfig(phi=0.4, phi_schedule="linear", phi_end=0.8), 1) == (0.4,)


def test_diversity_counts_what_comes_after_the_first() -> None:
    """4 wrong traces, 3 of them kept: 2 of 3 further ones are novel. One alone says nothing."""
    total = Diversity.of_prompt(4, 3) + Diversity.of_prompt(1, 1) + Diversity.of_prompt(0, 0)
    assert total == Diversity(3, 2)
    assert total.share == pytest.approx(2 / 3)
    assert Diversity.of_prompt(1, 1).share is None


def test_adaptive_rises_with_diverse_negatives_and_falls_with_alike_ones() -> None:
    adaptive = rule(phi=0.5, phi_schedule="adaptive", phi_gain=2.0)  # the target is the initial student's 0.8
    assert adaptive.phis() == (0.5,), "the second epoch's waits for the first"
    assert adaptive.phis([Diversity(100, 90)]) == pytest.approx((0.5, 0.7))
    assert adaptive.phis([Diversity(100, 90), Diversity(100, 70)]) == pytest.approx((0.5, 0.7, 0.5))
    assert adaptive.phis([Diversity(100, 0)]) == pytest.approx((0.5, 0.1)), "phi_min"
    assert adaptive.phis([Diversity(100, 100)] * 4) == pytest.approx((0.5, 0.9, 0.9, 0.9, 0.9)), "phi_max"
    assert adaptive.phis([Diversity()]) == (0.5, 0.5), "nothing measured, nothing changed"


def test_a_target_of_ones_own() -> None:
    assert rule(phi=0.5, phi_schedule="adaptive", phi_target=0.5).phis([Diversity(10, 6)]) == pytest.approx((0.5, 0.6))


@pytest.mark.parametrize(
    ("refresh", "staleness", "lag"),
    [(None, 0, 0), (None, 1, 1), (None, 2, 2), (2, 1, 1), (1, 4, 1), (1, 5, 2)],
)
def test_with_staleness_a_phi_waits_for_no_epoch_that_may_still_train(
    refresh: int | None, staleness: int, lag: int
) -> None:
    """4 steps an epoch: 1, 2 or 4 versions. A row of epoch e may be sampled `staleness` versions early."""
    adaptive = rule(refresh=refresh, phi_schedule="adaptive", max_staleness=staleness)
    assert adaptive.lag == lag
    shape = geometry(refresh=refresh)
    for epoch in range(1, 6):
        oldest = max(0, shape.version_at((epoch - 1) * shape.steps_per_epoch) - staleness)
        trained = oldest // shape.versions_per_epoch
        assert len(adaptive.phis([Diversity(10, 5)] * trained)) >= epoch, "every admitted row can be planned"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8))
def test_what_is_known_never_changes(measured: list[tuple[int, int]]) -> None:
    """A resumed run, and a sampler that is ahead, see the same φ for the epochs that both know."""
    found = [Diversity(max(pair), min(pair)) for pair in measured]
    adaptive = rule(epochs=9, phi_schedule="adaptive")
    whole = adaptive.phis(found)
    for known in range(len(found)):
        assert adaptive.phis(found[:known]) == whole[: known + 1]
    assert all(0.1 <= phi <= 0.9 for phi in whole)


def test_an_epoch_whose_phi_is_not_known_is_not_planned() -> None:
    plan = Plan(0, [1.0, 0.0], geometry(), lambda position: f"p{position}")
    first, second = [plan.row(index) for index in range(32)], [plan.row(index) for index in range(32, 64)]
    assert {row.policy for row in first} == {"live"}
    assert {row.policy for row in second} == {"initial"}
    with pytest.raises(ValueError, match="φ of epoch 3 is not determined yet"):
        plan.row(64)


def test_no_live_negatives_where_none_are_used() -> None:
    sft = parse_config(changed({"train.objective": "sft"}))
    assert PhiRule.of(sft, geometry()).phis() == (0.0,) * 5
    assert math.isclose(PhiRule.of(parse_config(changed({})), geometry()).phis()[0], 0.5)
