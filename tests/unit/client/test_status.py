"""What a run's log and job say, read from the text that `orpo-ray run` really prints."""

import io
from typing import Any

import pytest
from rich.console import Console

from orpo_ray.client.jobs import Job
from orpo_ray.client.status import LogFacts, RunState, read_log, run_status
from orpo_ray.report.progress import PlainProgress


def printed(*events: tuple[str, dict[str, Any]]) -> str:
    """What a run that is a job prints of these events."""
    text = io.StringIO()
    console = Console(file=text, width=140)
    with PlainProgress(console) as progress:
        for kind, fields in events:
            progress(kind, fields)
    return text.getvalue()


def test_the_phase_is_the_last_one_that_is_spoken_of() -> None:
    start = ("phase.start", {"phase": "PREPARE"})
    assert read_log(printed(start)).phase == "PREPARE"
    done = ("phase.done", {"phase": "PREPARE", "seconds": 1.0, "result": {}})
    teaching = ("teach.progress", {"done": 3, "total": 9, "traces_per_s": 2.0, "right": 1, "traces": 3})
    assert read_log(printed(start, done, ("phase.start", {"phase": "TEACH"}), teaching)).phase == "TEACH"
    found = ("phase.found", {"phase": "SEED", "seconds": 1.0, "result": {}})
    assert read_log(printed(found, ("note", {"text": "DISTILL is not a phase here"}))).phase == "SEED"


def test_name_and_storage() -> None:
    log = "2026-01-01 INFO job_manager.py\nrun my.run at /a b/runs/my.run\nPREPARE  …\n"
    assert read_log(log) == LogFacts("my.run", "/a b/runs", "PREPARE", "")


def test_the_message_has_all_its_lines_and_no_hint() -> None:
    log = "TEACH    …\norpo-ray: first\norpo-ray: run.yaml: 2 mistakes\n  - a\n  - b\nThe traceback is in /x\nWhat is finished is kept."
    assert read_log(log).message == "run.yaml: 2 mistakes\n  - a\n  - b"


def a_job(status: str, code: int | None, message: str = "") -> Job:
    return Job("a", status, message, "orpo-ray run x", {}, code, 1_700_000_000_000, None, None)


@pytest.mark.parametrize(
    ("status", "code", "state"),
    [
        ("PENDING", None, RunState.PENDING),
        ("RUNNING", None, RunState.RUNNING),
        ("SUCCEEDED", 0, RunState.DONE),
        ("STOPPED", None, RunState.STOPPED),
        ("FAILED", 1, RunState.FAILED),
        ("FAILED", 2, RunState.REFUSED),
        ("FAILED", 143, RunState.STOPPED),
        ("FAILED", None, RunState.FAILED),
    ],
)
def test_the_state(status: str, code: int | None, state: RunState) -> None:
    assert run_status(a_job(status, code), "").state is state


def test_a_driver_that_was_killed_said_nothing_so_ray_does() -> None:
    ended = run_status(a_job("FAILED", None, "Job supervisor actor died: node was terminated"), "TEACH    …\n")
    assert ended.message == "Job supervisor actor died: node was terminated"
    assert str(ended.error()) == "a failed in TEACH: Job supervisor actor died: node was terminated"
