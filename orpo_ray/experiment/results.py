"""What a finished run of the experiment found, read from its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from orpo_ray.config.fingerprint import what_matters
from orpo_ray.config.layout import RunLayout
from orpo_ray.config.load import parse_config
from orpo_ray.controller.record import PhaseState, RunRecord, read_record
from orpo_ray.errors import ConfigError
from orpo_ray.experiment.measures import NegativeMeasures, negatives_by_epoch
from orpo_ray.experiment.runs import PlannedRun

_MEANS = ("loss", "margin", "chosen_logp", "rejected_logp", "accuracy", "staleness_mean", "phi", "lambda", "grad_norm")


@dataclass(frozen=True)
class Cost:
    """What phases took.

    Attributes:
        seconds: wall clock.
        core_hours: the CPUs that they asked for, at most the machine's; None where a run does not say.
        gpu_hours: the GPUs that they asked for.
    """

    seconds: float = 0.0
    core_hours: float = 0.0
    gpu_hours: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.core_hours + other.core_hours, self.gpu_hours + other.gpu_hours)


@dataclass(frozen=True)
class RunResult:
    """A run that is done.

    Attributes:
        curve: right answers and questions of the test split by epoch; 0 is the initial student.
        epoch: whose student the run exported; 0 where nothing was trained.
        right: ids of the test rows that this student answered right.
        extra: pass@k and majority@k of that student, where they were asked for.
        epochs: by epoch, means over its optimizer steps.
        negatives: by epoch, what was trained on.
        costs: by phase, of the run that did the work: a run that found traces took no time for them.
        tokens: `trained` (through the loss), `computed` (through the model), `sampled` (by live students).
        teacher: its greedy accuracy, right answers and questions; None where it cannot be asked.
    """

    run: PlannedRun
    curve: dict[int, tuple[int, int]]
    epoch: int
    right: frozenset[str]
    extra: dict[str, float] = field(default_factory=dict)
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    negatives: dict[int, NegativeMeasures] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    teacher: tuple[int, int] | None = None

    @property
    def accuracy(self) -> float:
        """Of the student that was exported, 0 to 1."""
        correct, total = self.curve[self.epoch]
        return correct / total

    @property
    def cost(self) -> Cost:
        """Of all phases."""
        return sum(self.costs.values(), Cost())


def is_finished(run: PlannedRun, storage: Path) -> bool:
    """Whether the run is done, under these very options."""
    layout = RunLayout(storage, run.name)
    record = read_record(layout.state)
    if record is None or record.state is not PhaseState.DONE:
        return False
    try:
        same = what_matters(parse_config(record.config)) == what_matters(run.config)
    except ConfigError:
        return False
    evaluations = sorted(layout.evaluations.glob("epoch-*-test.json"))
    # A run of an earlier version kept no list of what was right.
    return same and bool(evaluations) and all("right" in json.loads(file.read_text()) for file in evaluations)


def read_result(run: PlannedRun, storage: Path) -> RunResult:
    """The result of a run that `is_finished`."""
    layout = RunLayout(storage, run.name)
    record = read_record(layout.state)
    assert record is not None, "is_finished was asked first"
    phases = record.results()
    evaluations = [json.loads(file.read_text()) for file in sorted(layout.evaluations.glob("epoch-*-test.json"))]
    epoch = int(phases.get("EXPORT", {}).get("epoch", 0))
    exported = next(item for item in evaluations if item["epoch"] == epoch)
    lines = _lines(layout.metrics)
    steps = max((line["step"] for line in lines), default=0)
    last = max((line["epoch"] for line in lines), default=1)
    batch = run.config.train.global_batch
    test = phases.get("TEACH", {}).get("test")
    return RunResult(
        run=run,
        curve={item["epoch"]: (item["correct"], item["total"]) for item in evaluations},
        epoch=epoch,
        right=frozenset(exported["right"]),
        extra={name: exported[name] for name in exported if name.startswith(("pass@", "majority@"))},
        epochs=_by_epoch(lines),
        negatives=negatives_by_epoch(layout.journal, batch, steps // last) if steps else {},
        costs=_costs(record),
        tokens={
            "trained": sum(int(line.get("scored_tokens", 0)) for line in lines),
            "computed": sum(int(line.get("computed_tokens", 0)) for line in lines),
            "sampled": sum(int(line.get("sampled_tokens", 0)) for line in lines),
        },
        teacher=(test["correct"], test["total"]) if test else None,
    )


def _lines(metrics: Path) -> list[dict[str, Any]]:
    if not metrics.is_file():
        return []
    return [json.loads(line) for line in metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _by_epoch(lines: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Means over each epoch's steps, and what its live students made."""
    epochs: dict[int, list[Mapping[str, Any]]] = {}
    for line in lines:
        epochs.setdefault(line["epoch"], []).append(line)
    found = {}
    for epoch, steps in sorted(epochs.items()):
        means = {
            name: fmean(values) for name in _MEANS if (values := [line[name] for line in steps if _number(line, name)])
        }
        further, novel = (sum(line.get(name, 0) for line in steps) for name in ("further", "novel"))
        rows = {name: sum(line["by_policy"].get(name, 0) for line in steps) for name in steps[0]["by_policy"]}
        means |= {f"rows_{name}": float(count) for name, count in rows.items()}
        found[epoch] = means | ({"live_novelty": novel / further} if further else {})
    return found


def _number(line: Mapping[str, Any], name: str) -> bool:
    value = line.get(name)
    return isinstance(value, int | float) and value == value  # NaN is not itself


def _costs(record: RunRecord) -> dict[str, Cost]:
    prepared = record.phases["PREPARE"].result if "PREPARE" in record.phases else {}
    cores = prepared.get("cores") or float("inf")
    asked = prepared.get("resources", {})
    found = {}
    for name, phase in record.phases.items():
        if "skipped" in phase.result:
            continue
        of_phase = asked.get(name, {})
        cpus, gpus = min(of_phase.get("CPU", 1.0), cores), of_phase.get("GPU", 0.0)
        hours = phase.seconds / 3600
        found[name] = Cost(phase.seconds, cpus * hours, gpus * hours)
    return found
