"""Whether two recipes differ: paired tests over the same questions and seeds, and means over seeds with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan, cos, exp, fsum, lgamma, log, pi, sin, sqrt
from statistics import fmean, stdev

import numpy as np

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval; `low` and `high` are NaN where a single value says nothing of the spread."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


def mean_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of independent runs with Student's t interval, s / √n · t(n - 1).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to take the mean of")
    mean = fmean(values)
    if len(values) == 1:
        return Estimate(mean, float("nan"), float("nan"))
    half = t_quantile(confidence, len(values) - 1) * stdev(values) / sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def t_quantile(confidence: float, degrees: int) -> float:
    """t with P(|T| < t) = confidence for Student's distribution of `degrees` degrees of freedom, to 1e-10.

    Raises:
        ValueError: confidence not between 0 and 1, or no degree of freedom.
    """
    if not 0 < confidence < 1 or degrees < 1:
        raise ValueError(f"confidence {confidence} and {degrees} degrees of freedom have no quantile")
    low, high = 0.0, 1.0
    while t_within(high, degrees) < confidence:
        high *= 2
    while high - low > 1e-10 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, degrees) < confidence else (low, middle)
    return high


def t_within(t: float, degrees: int) -> float:
    """P(|T| < t), t ≥ 0, in closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = atan(t / sqrt(degrees))
    if degrees == 1:
        return 2 * angle / pi
    odd = degrees % 2
    term = cos(angle) if odd else 1.0
    total = term
    # The k-th factor is 2/3, 4/5, … for odd degrees, 1/2, 3/4, … for even ones.
    for step in range(2 + odd, degrees - 1, 2):
        term *= cos(angle) ** 2 * (step - 1) / step
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


@dataclass(frozen=True)
class Paired:
    """Two recipes on the same questions, one entry for each run of both (a task, a student and a seed).

    Attributes:
        gained: questions that the second had right and the first had not.
        lost: the other way round.
        total: questions.
    """

    gained: tuple[int, ...]
    lost: tuple[int, ...]
    total: tuple[int, ...]

    @classmethod
    def of(cls, first: Sequence[frozenset[str]], second: Sequence[frozenset[str]], total: Sequence[int]) -> "Paired":
        """From the ids that each run had right, run by run."""
        pairs = list(zip(first, second, strict=True))
        return cls(
            gained=tuple(len(b - a) for a, b in pairs), lost=tuple(len(a - b) for a, b in pairs), total=tuple(total)
        )

    @property
    def differences(self) -> list[float]:
        """Second's accuracy less first's, by run."""
        return [(g - l) / n for g, l, n in zip(self.gained, self.lost, self.total, strict=True)]  # noqa: E741

    @property
    def mcnemar(self) -> float:
        """McNemar's exact p, two-sided, over the questions of all runs together.

        It asks whether the trained students differ on these questions. Questions of several seeds are counted as if they
        were independent; whether the *recipe* differs, over seeds too, is what `bootstrap` and the t interval answer.
        """
        return exact_mcnemar(sum(self.gained), sum(self.lost))

    def bootstrap(self, confidence: float = 0.95, seed: int = 0) -> Estimate:
        """Mean difference with its percentile bootstrap interval: runs are drawn, then questions within each.

        Deterministic: the resamples are those of `seed`.
        """
        rng = np.random.default_rng(seed)
        runs = len(self.total)
        drawn = rng.integers(runs, size=(_RESAMPLES, runs))
        sums = np.zeros(_RESAMPLES)
        for run, (gained, lost, total) in enumerate(zip(self.gained, self.lost, self.total, strict=True)):
            times = (drawn == run).sum(axis=1)
            shares = [gained / total, lost / total, 1 - (gained + lost) / total]
            # A question is drawn as gained, lost or neither; a run drawn twice is resampled for each of its places.
            for place in range(int(times.max(initial=0))):
                counts = rng.multinomial(total, shares, size=_RESAMPLES)
                sums += np.where(times > place, (counts[:, 0] - counts[:, 1]) / total, 0.0)
        means = sums / runs
        low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Estimate(fmean(self.differences), float(low), float(high))


def exact_mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p of McNemar's test: the binomial test of `gained` against `lost` discordant pairs at one half."""
    discordant = gained + lost
    if not discordant:
        return 1.0
    # In logarithms, since the coefficients of a few thousand pairs have a thousand digits.
    whole = lgamma(discordant + 1) - discordant * log(2)
    tail = fsum(exp(whole - lgamma(k + 1) - lgamma(discordant - k + 1)) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail)


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for making several tests (Holm 1979), in the order given."""
    adjusted = [0.0] * len(values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda item: values[item])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def p_value_text(p: float) -> str:
    """As `0.03`, `0.0004` or `< 0.0001`."""
    if p < 1e-4:
        return "< 0.0001"
    digits = 2 if p >= 0.01 else 3 if p >= 0.001 else 4
    return f"{p:.{digits}f}"
