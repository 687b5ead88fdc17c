"""Training curves from metrics.jsonl: at most so many points a curve, however long the run."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_POINTS = 400
_RATES = {"trainer_tokens_per_s": "computed_tokens", "sampled_tokens_per_s": "sampled_tokens"}


@dataclass
class Curve:
    """Means over stretches of steps.

    Attributes:
        steps: the last step of each stretch.
        values: by name the mean over the stretch; None where no step has a value.
    """

    steps: list[int] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=lambda: defaultdict(list))

    def points(self, name: str) -> list[tuple[float, float | None]]:
        """Of one quantity; none where there is no such quantity."""
        return list(zip(map(float, self.steps), self.values.get(name, ()), strict=False))


@dataclass
class Training:
    """All that the report draws of the steps.

    Attributes:
        epochs: means over the steps of each epoch, by epoch.
        staleness: rows with live negatives by their staleness in versions.
        sums: of seconds, pairs and tokens over all steps.
    """

    curve: Curve
    epochs: dict[int, dict[str, float | None]]
    staleness: dict[int, int]
    sums: dict[str, float]


def read_training(metrics: Path) -> Training | None:
    """The steps of a run, read twice and never held; None where there is none."""
    total = sum(1 for _ in _lines(metrics))
    if not total:
        return None
    stretch = -(-total // MOST_POINTS)
    curve, by_epoch = Curve(), dict[int, _Means]()
    staleness, sums, means = defaultdict[int, int](int), defaultdict[str, float](float), _Means()
    for place, line in enumerate(_lines(metrics), start=1):
        numbers = _numbers(line)
        means.add(numbers)
        by_epoch.setdefault(line["epoch"], _Means()).add(numbers)
        for lag, rows in line.get("staleness", {}).items():
            staleness[int(lag)] += rows
        for name in ("seconds", "pairs", "scored_tokens", "computed_tokens", "sampled_tokens"):
            sums[name] += numbers.get(name, 0.0)
        if place % stretch == 0 or place == total:
            curve.steps.append(line["step"])
            values = means.values()
            for name in {*values, *curve.values}:
                column = curve.values[name]
                column += [None] * (len(curve.steps) - 1 - len(column))
                column.append(values.get(name))
            means = _Means()
    return Training(
        curve, {epoch: dict(found.values()) for epoch, found in by_epoch.items()}, dict(staleness), dict(sums)
    )


class _Means:
    """Means by name, of those lines that have the name; rates are of sums, not means of rates."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._sums[name] += value
            self._counts[name] += 1

    def values(self) -> Mapping[str, float | None]:
        found: dict[str, float | None] = {name: total / self._counts[name] for name, total in self._sums.items()}
        seconds = self._sums.get("seconds", 0.0)
        for rate, tokens in _RATES.items():
            if tokens in self._sums:
                found[rate] = self._sums[tokens] / seconds if seconds else None
        return found


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in line.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def epoch_rows(training: Training, names: Sequence[str]) -> Iterator[tuple[int, list[float | None]]]:
    """Each epoch with its means of `names`."""
    for epoch in sorted(training.epochs):
        yield epoch, [training.epochs[epoch].get(name) for name in names]
