"""What a finished run comes to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """Held-out accuracy of one model.

    Attributes:
        split: test or validation.
        epoch: after which; 0 is the student before training, None is no student (the teacher).
        low, high: the Wilson 95 % interval of `rate`, as shares.
    """

    split: str
    epoch: int | None
    correct: int
    total: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Right answers, as a share of all."""
        return self.correct / self.total


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: the exported student's directory, as the cluster sees it.
        epoch: whose weights it holds.
        evaluations: the table: by split, then by epoch.
        teacher: None for one that could not be asked.
        report: everything that `orpo-ray show --json` prints.
    """

    name: str
    path: str
    epoch: int
    evaluations: tuple[Evaluation, ...]
    teacher: Evaluation | None
    report: Mapping[str, Any]


def run_result(report: Mapping[str, Any]) -> RunResult:
    """The result in a finished run's report."""
    teacher = report["teacher"]
    return RunResult(
        name=report["name"],
        path=report["student"]["path"],
        epoch=report["student"]["epoch"],
        evaluations=tuple(_evaluation(line, line["split"], line["epoch"]) for line in report["evaluations"]),
        teacher=None if teacher is None else _evaluation(teacher, teacher["measured"].rpartition(" ")[2], None),
        report=report,
    )


def _evaluation(line: Mapping[str, Any], split: str, epoch: int | None) -> Evaluation:
    return Evaluation(split, epoch, line["correct"], line["total"], line["low"], line["high"])
