"""Accuracy as a share with its uncertainty: the Wilson score interval."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Lower and upper bound of a share, by Wilson's score interval without continuity correction.

    It stays inside [0, 1] and keeps its coverage where the share is near 0 or 1, unlike `p ± z·s`.

    Args:
        correct: successes, 0 ≤ correct ≤ total.
        total: trials; with 0 of them nothing is known, and the bounds are 0 and 1.
        confidence: two-sided coverage, above 0 and below 1.

    Raises:
        ValueError: counts or confidence outside their range.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} of {total} is no share: take 0 ≤ correct ≤ total")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; take a value between 0 and 1")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrink = correct / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z / shrink * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At an edge the bound is the edge itself, which rounding can miss by one unit in the last place.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == total else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class Accuracy:
    """`correct` right answers out of `total`."""

    correct: int
    total: int

    @property
    def rate(self) -> float:
        """Share of right answers; NaN where there is none to judge."""
        return self.correct / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the rate."""
        return wilson_interval(self.correct, self.total)

    def __str__(self) -> str:
        """As `47.4 % (43.1–51.8)`, the interval in the same unit."""
        if not self.total:
            return "no answers"
        low, high = self.interval
        return f"{100 * self.rate:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
