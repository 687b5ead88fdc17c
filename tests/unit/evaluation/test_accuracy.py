"""The Wilson interval against published values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.evaluation.accuracy import Accuracy, wilson_interval

# R. G. Newcombe, "Two-sided confidence intervals for the single proportion: comparison of seven methods", Statistics in
# Medicine 17 (1998), table I, method 3 (score without continuity correction), 95 %.
NEWCOMBE = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("correct", "total", "low", "high"), NEWCOMBE)
def test_published_intervals(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate_and_mirrors(counts: tuple[int, int]) -> None:
    correct, total = counts
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    mirrored = wilson_interval(total - correct, total)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_each_bound_solves_the_score_equation(counts: tuple[int, int]) -> None:
    """Wilson's definition: the bounds are the shares p with |correct/total − p| = z·√(p(1 − p)/total)."""
    correct, total = counts
    for bound in wilson_interval(correct, total):
        if 0 < bound < 1:
            spread = 1.959963984540054 * math.sqrt(bound * (1 - bound) / total)
            assert abs(correct / total - bound) == pytest.approx(spread, rel=1e-6, abs=1e-9)


def test_edges() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 500)[0] == 0.0
    assert wilson_interval(500, 500)[1] == 1.0


@pytest.mark.parametrize(("correct", "total", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0), (1, 5, 1)])
def test_what_is_no_share_is_refused(correct: int, total: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"share|confidence"):
        wilson_interval(correct, total, confidence)


def test_accuracy_reads_as_percent_with_interval() -> None:
    assert str(Accuracy(237, 500)) == "47.4 % (43.1–51.8)"
    assert Accuracy(237, 500).rate == 0.474
    assert str(Accuracy(0, 0)) == "no answers"
    assert math.isnan(Accuracy(0, 0).rate)
