"""All that the files of a run say about it, as plain data: what `orpo-ray show --json` prints."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import InputError
from orpo_ray.evaluation.accuracy import Accuracy
from orpo_ray.report.progress import remark
from orpo_ray.report.trial import trial_line
from orpo_ray.report.wording import phase_sentence, teacher_accuracy

_HAPPENINGS = ("note", "distill.places", "distill.left")
_REMARKS = 20
PHASES = ("PREPARE", "TEACH", "SEED", "DISTILL", "EVALUATE", "EXPORT")


def find_run(run: str, storage: Path) -> RunLayout:
    """The files of a run, given by its name under `storage`, or by its directory.

    Raises:
        InputError: there is no such run; names those that are there.
    """
    for directory in (Path(run), storage / run):
        if (directory / "run.json").is_file():
            return RunLayout(directory.resolve().parent, directory.resolve().name)
    there = sorted(file.parent.name for file in storage.glob("*/run.json"))
    known = f"runs there are {', '.join(there)}" if there else "there are none"
    raise InputError(f"{run}: no run of this name in {storage} ({known}), and no run's directory; see --storage")


def run_report(layout: RunLayout, *, alive: bool) -> dict[str, Any]:
    """Phases, accuracy, pairs, staleness, and where things lie; all of it JSON.

    Args:
        alive: whether a process works on the run; without one, `running` means that it was killed.
    """
    record = _read(layout.state)
    results = {
        name: phase["result"]
        for name, phase in record["phases"].items()
        if phase["state"] == "done" and phase["result"] and "skipped" not in phase["result"]
    }
    evaluations = read_evaluations(layout.evaluations)
    phases = list(_phases(record["phases"], alive))
    return {
        "name": record["name"],
        "directory": str(layout.run),
        "state": _state(record["state"], alive),
        "error": record["error"],
        "command": record["command"],
        "started": record["started"],
        "finished": record["finished"],
        "seconds": round(sum(phase["seconds"] for phase in phases), 3),
        "phases": phases,
        "happened": _happened(layout.events),
        "evaluations": [_with_interval(evaluation) for evaluation in evaluations],
        "teacher": _teacher(results.get("TEACH", {})),
        "traces": {"teacher": _trace_counts(results.get("TEACH")), "student": _trace_counts(results.get("SEED"))},
        "training": results.get("DISTILL") or _training_so_far(layout),
        "student": _student(results, evaluations),
        "files": _files(layout, results),
    }


def read_evaluations(directory: Path) -> list[dict[str, Any]]:
    """The evaluation files of a run, by split and epoch, with their sample traces."""
    evaluations = [_read(file) for file in sorted(directory.glob("epoch-*.json"))]
    return sorted(evaluations, key=lambda evaluation: (evaluation["split"], evaluation["epoch"]))


def committed_ledger(directory: Path) -> Iterator[dict[str, Any]]:
    """Lines of the committed lineage, each trained row once.

    Each attempt starts from a checkpoint, so what an older one trained past that point is void. Its lines are removed
    when the next attempt starts; lines past the last checkpoint of a run that was killed stand until then.
    """
    attempts: dict[int, list[Path]] = {}
    for file in sorted(directory.glob("attempt-*.jsonl")):
        attempts.setdefault(int(file.name.split("-")[1]), []).append(file)
    # Only the first line of a rank's file is read for this: steps rise within it.
    begins = {
        attempt: min((line["step"] for file in files if (line := next(_lines(file), None))), default=None)
        for attempt, files in attempts.items()
    }
    for attempt in sorted(attempts):
        later = [step for other, step in begins.items() if other > attempt and step is not None]
        end = min(later, default=float("inf"))
        for file in attempts[attempt]:
            yield from (line for line in _lines(file) if line["step"] < end)


def _happened(events: Path) -> list[dict[str, str]]:
    """The newest remarks: what was made up for, fewer or more workers and samplers, what there was to know."""
    remarks: deque[dict[str, str]] = deque(maxlen=_REMARKS)
    for line in _lines(events) if events.is_file() else ():
        if line["kind"] in _HAPPENINGS:
            remarks.append({"time": line.get("time", ""), "text": (remark(line["kind"], line) or "").strip()})
    return list(remarks)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Lines of a JSON-lines file; the last one may be cut by a kill."""
    with file.open(encoding="utf-8") as opened:
        for line in opened:
            if line.endswith("\n"):
                yield json.loads(line)


def _read(file: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    return data


def _phases(recorded: Mapping[str, Mapping[str, Any]], alive: bool) -> Iterator[dict[str, Any]]:
    before = "done"
    for name in PHASES:
        phase = recorded.get(name)
        # What stands behind a phase that is not done belongs to an earlier configuration.
        if phase is None or before != "done":
            yield {"name": name, "state": "waiting", "seconds": 0.0, "error": None, "did": ""}
            continue
        before = _state(phase["state"], alive)
        yield {
            "name": name,
            "state": before,
            "seconds": _seconds(phase) if before == "running" else phase["seconds"],
            "error": phase["error"],
            "did": phase_sentence(name, phase["result"]),
        }


def _state(state: str, alive: bool) -> str:
    return "killed" if state == "running" and not alive else state


def _seconds(phase: Mapping[str, Any]) -> float:
    """Of a phase that works right now."""
    began = datetime.fromisoformat(phase["started"])
    return round(float(phase["seconds"]) + (datetime.now(began.tzinfo) - began).total_seconds(), 3)


def _interval(accuracy: Accuracy) -> dict[str, Any]:
    low, high = accuracy.interval
    return {
        "correct": accuracy.correct,
        "total": accuracy.total,
        "rate": round(accuracy.rate, 6) if accuracy.total else None,
        "low": round(low, 6),
        "high": round(high, 6),
    }


def _with_interval(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in evaluation.items() if name not in ("samples", "right")}
    return plain | _interval(Accuracy(evaluation["correct"], evaluation["total"]))


def _teacher(teach: Mapping[str, Any]) -> dict[str, Any] | None:
    found = teacher_accuracy(teach)
    return None if found is None else _interval(found[0]) | {"measured": found[1]}


def _trace_counts(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers of a TEACH or SEED result."""
    if result is None:
        return None
    return {name: value for name, value in result.items() if isinstance(value, int | float)}


def _training_so_far(layout: RunLayout) -> dict[str, Any] | None:
    """The last optimizer step, and sums over those before it, of a distillation that is not done."""
    last: dict[str, Any] | None = None
    pairs, policies, staleness = 0, dict[str, int](), dict[str, int]()
    for last in _lines(layout.metrics) if layout.metrics.is_file() else ():
        pairs += int(last.get("pairs", 0))
        for sums, name in ((policies, "by_policy"), (staleness, "staleness")):
            for key, count in last.get(name, {}).items():
                sums[key] = sums.get(key, 0) + count
    if last is None:
        return None
    newest = {name: last.get(name) for name in ("step", "epoch", "attempt", "version", "loss", "pairs_per_s")}
    return newest | {"pairs": pairs, "by_policy": policies, "staleness": staleness}


def _student(results: Mapping[str, Any], evaluations: list[dict[str, Any]]) -> dict[str, Any] | None:
    export = results.get("EXPORT")
    if export is None:
        return None
    prompts = [sample["prompt"] for evaluation in evaluations for sample in evaluation.get("samples", [])]
    return dict(export) | {"try": trial_line(Path(export["path"]), prompts)}


def _files(layout: RunLayout, results: Mapping[str, Any]) -> dict[str, str]:
    """What lies where, of all that is there."""
    candidates = {
        "teacher traces": results.get("TEACH", {}).get("path"),
        "initial student's traces": results.get("SEED", {}).get("path"),
        "pairs": layout.pairs,
        "ledger": layout.ledger,
        "metrics": layout.metrics,
        "TensorBoard": layout.tensorboard,
        "checkpoints": layout.checkpoints,
        "students by version": layout.weights,
        "evaluations and samples": layout.evaluations,
        "events": layout.events,
        "what libraries printed": layout.log,
        "student": layout.export,
    }
    return {name: str(path) for name, path in candidates.items() if path and Path(path).exists()}
