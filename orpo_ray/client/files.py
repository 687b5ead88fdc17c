"""What a run's files say, line by line: read here where its storage is seen, else by a small job on the cluster."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from orpo_ray.client.errors import ClusterError
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller.lock import lock_holder
from orpo_ray.report.browse import phase_results, trace_store
from orpo_ray.report.show import run_report

BEGIN, END = "--- orpo-ray read begins ---", "--- orpo-ray read ends ---"


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

    Raises:
        InputError: the traces that the run's record names are gone.
    """
    layout = RunLayout(storage, name)
    if not layout.state.is_file():
        return iter(())
    if what is What.REPORT:
        return iter([run_report(layout, alive=lock_holder(layout.lock) is not None)])
    if what in (What.METRICS, What.EVENTS):
        return islice(_json_lines(layout.metrics if what is What.METRICS else layout.events), limit)
    return islice(_traces(layout, "teacher" if what is What.TEACHER_TRACES else "initial"), limit)


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


def _traces(layout: RunLayout, source: Literal["teacher", "initial"]) -> Iterator[dict[str, Any]]:
    record = json.loads(layout.state.read_text(encoding="utf-8"))
    store = trace_store(layout, phase_results(record), source)
    for _, group in store.prompts() if store else ():
        yield from (asdict(trace) for trace in group)
