"""What teacher, samplers, trainer and evaluator are doing: tokens a second and utilisation, from the workers' own lines."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orpo_ray.service.lines import last_lines
from orpo_ray.service.schemas import GroupActivity

WINDOW_S = 300.0
"""It is told of the last so many seconds in which anybody said anything."""
_TAIL = 256 << 10
# The line that a worker of a group writes when it has done a piece of its work, and the groups in the order of a run.
_GROUPS = {
    "teacher": "teacher.answered",
    "samplers": "sampler.block",
    "trainer": "train.step",
    "evaluator": "evaluator.done",
}


def activity(logs: Path) -> list[GroupActivity]:
    """Each group that has worked within the window, from the tail of each worker's file below `logs`.

    Utilisation is the share of the window in which a worker had a piece of work in hand, waiting at the staleness gate left
    out, as a mean over the group's workers. Calls to an API teacher are work of whoever answers them.
    """
    files = sorted(logs.glob("*.jsonl")) if logs.is_dir() else []
    lines = [line for file in files for line in last_lines(file, _TAIL, set(_GROUPS.values()))]
    if not lines:
        return []
    end = max(_seconds(line) for line in lines)
    begin = max(end - WINDOW_S, min(_seconds(line) - line["seconds"] for line in lines))
    found = []
    for group, kind in _GROUPS.items():
        own = [line for line in lines if line["kind"] == kind and _seconds(line) > begin]
        if own:
            found.append(_of_group(group, own, begin, end))
    return found


def _of_group(group: str, lines: Sequence[dict[str, Any]], begin: float, end: float) -> GroupActivity:
    workers = sorted({line["process"] for line in lines})
    # From its own first piece on: a group that has only begun was not idle before.
    begin = max(begin, min(_began(line) for line in lines))
    seconds = max(end - begin, 1e-3)
    busy = sum(
        covered([(max(_began(line), begin), _seconds(line)) for line in lines if line["process"] == worker])
        for worker in workers
    )
    return GroupActivity(
        group=group,
        workers=len(workers),
        tokens_per_s=round(sum(line.get("tokens", 0) for line in lines) / seconds, 2),
        utilisation=round(min(1.0, busy / seconds / len(workers)), 4),
        until=datetime.fromtimestamp(end, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        seconds=round(seconds, 1),
    )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    total, reached = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return total


def _seconds(line: dict[str, Any]) -> float:
    """When a piece of work was done, in seconds since the epoch."""
    return datetime.fromisoformat(line["time"]).timestamp()


def _began(line: dict[str, Any]) -> float:
    return _seconds(line) - float(line["seconds"]) + float(line.get("waited", 0.0))
