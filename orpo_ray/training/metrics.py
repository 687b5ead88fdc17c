"""One line an optimizer step in metrics.jsonl; rank 0 writes them. Trackers are fed from that file (`tracking.follow`)."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orpo_ray.config.layout import RunLayout
from orpo_ray.pairs import Diversity, PairGroup
from orpo_ray.pairs.group import Origin
from orpo_ray.pairs.phi import NOTHING_MEASURED
from orpo_ray.tracking.meter import record_step
from orpo_ray.training.batching import Truncation
from orpo_ray.training.deepspeed_engine import StepResult
from orpo_ray.training.sharing import Share, token_balance
from orpo_ray.training.stats import summary
from orpo_ray.weights import StalenessGate

_POLICIES: tuple[Origin, ...] = ("live", "initial", "teacher", "none")


@dataclass(frozen=True)
class StepCounts:
    """What a step's rows were.

    Attributes:
        rows: rows of weight 1.
        by_policy: rows by the origin of their negatives, in the order live, initial, teacher, none.
        staleness: live rows by staleness in versions, from 0.
        diversity: of the wrong traces that the live student made for these rows.
        sampled_tokens: that the live student made for them.
    """

    rows: int
    by_policy: tuple[int, ...]
    staleness: tuple[int, ...]
    diversity: Diversity = NOTHING_MEASURED
    sampled_tokens: int = 0

    @classmethod
    def of(cls, groups: Sequence[PairGroup], gate: StalenessGate) -> "StepCounts":
        """Counts of a global batch.

        Raises:
            RuntimeError: a row is staler than policy.max_staleness: the gate's promise is broken.
        """
        real = [group for group in groups if group.real]
        policies = Counter(group.policy for group in real)
        lags = Counter(gate.staleness(group.index, group.version) for group in real if group.policy == "live")
        if lags and not 0 <= min(lags) <= max(lags) <= gate.max_staleness:
            raise RuntimeError(f"staleness {sorted(lags)} outside 0 to {gate.max_staleness}: the gate was passed")
        return cls(
            rows=len(real),
            by_policy=tuple(policies[name] for name in _POLICIES),
            staleness=tuple(lags[lag] for lag in range(gate.max_staleness + 1)),
            diversity=sum((Diversity.of_prompt(group.wrong, group.distinct) for group in real), Diversity()),
            sampled_tokens=sum(group.sampled_tokens for group in real),
        )


class MetricsWriter:
    """Appends to metrics.jsonl."""

    def __init__(self, layout: RunLayout) -> None:
        self._file = layout.metrics.open("a")

    def append(
        self,
        *,
        step: int,
        epoch: int,
        attempt: int,
        version: int,
        learning_rate: float,
        lam: float,
        phi: float,
        seconds: float,
        result: StepResult,
        shares: Sequence[Share],
        cut: Truncation,
        counts: StepCounts,
    ) -> None:
        """Write the numbers of optimizer step `step` (from 1)."""
        means = summary(result.sums)
        if not result.applied:
            means["pairs"] = 0.0
        lags = sum(lag * rows for lag, rows in enumerate(counts.staleness))
        live = sum(counts.staleness)
        line = {
            "step": step,
            "epoch": epoch,
            "attempt": attempt,
            "version": version,
            "learning_rate": learning_rate,
            "lambda": lam,
            "phi": phi,
            "grad_norm": result.grad_norm,
            "skipped": int(not result.applied),
            "seconds": round(seconds, 4),
            "pairs_per_s": round(means["pairs"] / seconds, 3) if seconds > 0 else 0.0,
            "rows": counts.rows,
            "by_policy": dict(zip(_POLICIES, counts.by_policy, strict=True)),
            "staleness": {str(lag): rows for lag, rows in enumerate(counts.staleness)},
            "staleness_mean": lags / live if live else 0.0,
            "further": counts.diversity.further,
            "novel": counts.diversity.novel,
            "sampled_tokens": counts.sampled_tokens,
            "cut": cut.prompts + cut.traces,
            "cut_prompts": cut.prompts,
            "cut_traces": cut.traces,
            "micro_steps": len(shares[0].micro_batches),
            "tokens_by_rank": [share.tokens for share in shares],
            "token_balance": round(token_balance(shares), 4),
            "time_balance": round(result.time_balance, 4),
            **{name: round(value, 6) for name, value in means.items()},
        }
        # JSON has no NaN: what a skipped step could not compute is left out.
        line = {name: value for name, value in line.items() if not _is_not_finite(value)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        record_step(line)

    def close(self) -> None:
        self._file.close()


def live_diversity(metrics: Path, epochs: int) -> list[Diversity]:
    """Diversity of the live negatives in each of the first `epochs` epochs, from the committed lines of metrics.jsonl.

    Lines of steps that no checkpoint committed are dropped when an attempt starts, so a resumed run reads what it read.
    """
    found = [Diversity() for _ in range(epochs)]
    if not epochs:
        return found
    with metrics.open() as lines:
        for line in map(json.loads, lines):
            if line["epoch"] <= epochs:
                found[line["epoch"] - 1] += Diversity(line["further"], line["novel"])
    return found


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
