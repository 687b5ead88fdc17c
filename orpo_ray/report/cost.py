"""What a run cost, phase by phase: time, the CPUs and GPUs that it asked for meanwhile, and tokens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orpo_ray.report.curves import Training


@dataclass(frozen=True)
class PhaseCost:
    """One phase.

    Attributes:
        cpu_hours, gpu_hours: its time × the CPUs and GPUs that its groups ask Ray for; CPUs are logical. None where the
            run does not say what it asks for.
        sampled: tokens that a model wrote; of the teacher counted in the student's tokens. None where not known.
        trained: tokens that went through the trainer's model.
    """

    name: str
    seconds: float
    cpu_hours: float | None
    gpu_hours: float | None
    sampled: int | None
    trained: int | None


def phase_costs(
    phases: list[Mapping[str, Any]],
    asked: Mapping[str, Mapping[str, float]],
    card: Mapping[str, Any] | None,
    training: Training | None,
    evaluations: list[Mapping[str, Any]],
) -> Iterator[PhaseCost]:
    """The phases that have worked.

    Args:
        phases: name and seconds of each, as `run_report` has them.
        asked: CPU and GPU by phase, as PREPARE found them.
    """
    sampled: dict[str, int] = {}
    for name, source in (("TEACH", "teacher"), ("SEED", "initial")):
        stored = (card or {}).get("traces", {}).get(source)
        if stored and stored["tokens"]:
            sampled[name] = round(stored["tokens"]["mean"] * stored["traces"])
    if training is not None:
        sampled["DISTILL"] = round(training.sums["sampled_tokens"])
    if evaluations:
        sampled["EVALUATE"] = round(sum(item["mean_tokens"] * item["total"] for item in evaluations))
    for phase in phases:
        if not phase["seconds"]:
            continue
        hours, needs = phase["seconds"] / 3600, asked.get(phase["name"])
        yield PhaseCost(
            name=phase["name"],
            seconds=phase["seconds"],
            cpu_hours=hours * needs["CPU"] if needs else None,
            gpu_hours=hours * needs["GPU"] if needs else None,
            sampled=sampled.get(phase["name"]),
            trained=round(training.sums["computed_tokens"]) if training and phase["name"] == "DISTILL" else None,
        )
