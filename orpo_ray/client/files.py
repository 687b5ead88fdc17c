"""What a run's files say, line by line: read here where its storage is seen, else by a small job on the cluster."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from orpo_ray.client.errors import ClusterError
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller.lock import lock_holder
from orpo_ray.controller.record import PhaseState, read_record
from orpo_ray.report.show import run_report
from orpo_ray.traces.store import TraceStore

BEGIN, END = "--- orpo-ray read begins ---", "--- orpo-ray read ends ---"
_MAKERS = {"teacher": "TEACH", "student": "SEED"}


class What(StrEnum):
    """What can be read of a run."""

    REPORT = "report"
    METRICS = "metrics"
    EVENTS = "events"
    TEACHER_TRACES = "teacher-traces"
    STUDENT_TRACES = "student-traces"


def read_lines(storage: Path, name: str, what: What, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """What the files of the run `name` in `storage` say; nothing where they are not there yet.

    Args:
        limit: at most so many lines, the first ones.
    """
    layout = RunLayout(storage, name)
    if not layout.state.is_file():
        return iter(())
    if what is What.REPORT:
        return iter([run_report(layout, alive=lock_holder(layout.lock) is not None)])
    if what in (What.METRICS, What.EVENTS):
        return islice(_json_lines(layout.metrics if what is What.METRICS else layout.events), limit)
    return islice(_traces(layout, _MAKERS[what.partition("-")[0]]), limit)


def parse_printed(log: str) -> list[dict[str, Any]]:
    """The lines that a reading job has printed.

    Raises:
        ClusterError: it printed no end, so it broke; says what it said last.
    """
    _, begun, rest = log.partition(f"{BEGIN}\n")
    text, ended, _ = rest.partition(END)
    if not begun or not ended:
        lines = [line for line in log.splitlines() if line.strip()] or ["nothing"]
        raise ClusterError(f"the run's files could not be read on the cluster; the job said: {lines[-1].strip()}")
    return [json.loads(line) for line in text.split("\n") if line]


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The last line may still be in the writing."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def _traces(layout: RunLayout, phase: str) -> Iterator[dict[str, Any]]:
    record = read_record(layout.state)
    made = record.phases.get(phase) if record else None
    if made is None or made.state is not PhaseState.DONE:
        return
    # The key of SEED's store is the phase's own.
    store = TraceStore.find(Path(made.result["path"]), made.result.get("key", made.fingerprint))
    for _, group in store.prompts() if store else ():
        yield from (asdict(trace) for trace in group)
