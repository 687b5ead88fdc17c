"""Paired tests and intervals against values that others computed."""

import math
from statistics import NormalDist

import pytest

from orpo_ray.evaluation.paired import Paired, exact_mcnemar, holm, mean_over_seeds, p_value_text, t_quantile, t_within


@pytest.mark.parametrize(
    ("degrees", "t"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (10, 2.2281), (30, 2.0423),
     (120, 1.9799)],
)  # fmt: skip
def test_quantiles_of_students_t(degrees: int, t: float) -> None:
    """Any printed table of the t distribution, column 0.975."""
    assert t_quantile(0.95, degrees) == pytest.approx(t, abs=6e-5)
    assert t_within(t_quantile(0.99, degrees), degrees) == pytest.approx(0.99, abs=1e-9)


def test_mean_with_its_interval() -> None:
    """5 values of mean 3 and standard deviation 1.5811: 3 ± 2.7764 · 1.5811 / √5 = 3 ± 1.9632."""
    estimate = mean_over_seeds([1, 2, 3, 4, 5])
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((3, 1.0368, 4.9632), abs=1e-4)
    alone = mean_over_seeds([0.4])
    assert alone.mean == 0.4
    assert math.isnan(alone.low)
    with pytest.raises(ValueError, match="no values"):
        mean_over_seeds([])


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (8, 2, 0.109375),  # 2 · (1 + 10 + 45) / 1024
        (2, 8, 0.109375),
        (10, 0, 0.001953125),  # 2 / 1024
    ],
)
def test_mcnemar(gained: int, lost: int, p: float) -> None:
    assert exact_mcnemar(gained, lost) == pytest.approx(p, rel=1e-3)


def test_mcnemar_of_many_pairs_is_near_the_normal_approximation() -> None:
    """z = (|b - c| - 1) / √(b + c), with the correction for continuity."""
    z = (10_100 - 9_900 - 1) / math.sqrt(20_000)
    assert exact_mcnemar(10_100, 9_900) == pytest.approx(2 * NormalDist().cdf(-z), rel=1e-3)
    assert exact_mcnemar(15_000, 5_000) < 1e-100


def test_paired_by_run() -> None:
    first = [frozenset("abc"), frozenset("ab")]
    second = [frozenset("bcde"), frozenset("abcd")]
    paired = Paired.of(first, second, [10, 10])
    assert (paired.gained, paired.lost) == ((2, 2), (1, 0))
    assert paired.differences == pytest.approx([0.1, 0.2])
    assert paired.mcnemar == pytest.approx(2 * (1 + 5) / 32)


def test_bootstrap_of_one_run_is_the_questions_own_spread() -> None:
    """Mean 0.1; a question is +1 with 0.2, -1 with 0.1: variance 0.3 - 0.01 = 0.29, over 1,000 questions ± 1.96 · 0.01703."""
    estimate = Paired((200,), (100,), (1000,)).bootstrap()
    assert estimate.mean == pytest.approx(0.1)
    assert (estimate.low, estimate.high) == pytest.approx((0.1 - 0.0334, 0.1 + 0.0334), abs=0.002)
    assert estimate == Paired((200,), (100,), (1000,)).bootstrap(), "the same each time"


def test_bootstrap_knows_that_seeds_differ() -> None:
    """Runs that disagree widen the interval far beyond what their questions alone would say."""
    alike = Paired((200, 200, 200, 200), (100, 100, 100, 100), (1000,) * 4).bootstrap()
    apart = Paired((300, 100, 300, 100), (0, 200, 0, 200), (1000,) * 4).bootstrap()
    assert alike.mean == pytest.approx(apart.mean)
    assert apart.half > 4 * alike.half


def test_holm() -> None:
    """The textbook example: 0.01, 0.02, 0.03, 0.04 of four tests."""
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("p", "text"), [(0.213, "0.21"), (0.0123, "0.01"), (0.0049, "0.005"), (0.00042, "0.0004"), (1e-9, "< 0.0001")]
)
def test_p_in_words(p: float, text: str) -> None:
    assert p_value_text(p) == text
