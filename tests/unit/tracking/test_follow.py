"""What comes into a run's files goes to its trackers, once; a tracker that fails is told of once, and ends nothing."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller.distillation import start_anew
from orpo_ray.controller.record import PhaseState, RunRecord
from orpo_ray.errors import InputError
from orpo_ray.tracking.follow import Following, check_trackers
from orpo_ray.tracking.tracker import Trackers
from tests.unit.report.finished import EVALUATIONS, write_evaluations
from tests.unit.report.traced import METRICS


def config(**tracking: Any) -> RunConfig:
    return parse_config(
        {
            "name": "toy",
            "task": {"name": "arithmetic"},
            "teacher": {"model": "t"},
            "student": {"model": "s"},
            "tracking": tracking,
        }
    )


class Remembering:
    """A tracker that keeps what it is given."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.closed = False
        self._fails_at = fails_at

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._fails_at is not None and step >= self._fails_at:
            raise ConnectionError("no route to host\nat all")
        self.logged.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path, "toy")
    layout.run.mkdir()
    layout.state.touch()
    return layout


def add_steps(layout: RunLayout, *steps: int) -> None:
    with layout.metrics.open("a") as file:
        file.writelines(json.dumps(METRICS | {"step": step}) + "\n" for step in steps)


def followed(layout: RunLayout, during: Callable[[], None] = lambda: None) -> tuple[Remembering, list[str]]:
    tracker, warnings = Remembering(), list[str]()
    with Following(config(), layout, warnings.append, {"one": lambda: tracker}):
        during()
    return tracker, warnings


def steps_of(tracker: Remembering) -> list[int]:
    return [step for step, values in tracker.logged if "train/loss" in values]


def test_steps_and_evaluations_come_under_their_names(layout: RunLayout) -> None:
    add_steps(layout, 1, 2)
    write_evaluations(layout.evaluations)
    tracker, warnings = followed(layout)
    assert steps_of(tracker) == [1, 2]
    values = dict(tracker.logged)[2]
    assert values["train/loss"] == METRICS["loss"]
    assert values["train/by_policy/live"] == 1.0
    assert not {"train/step", "train/attempt"} & values.keys()
    evaluated = [(step, found["eval/test/accuracy"]) for step, found in tracker.logged if "eval/test/accuracy" in found]
    assert evaluated == [(item["step"], item["correct"] / item["total"]) for item in EVALUATIONS]
    assert (tracker.closed, warnings) == (True, [])


def test_they_come_while_the_run_works(layout: RunLayout) -> None:
    tracker = Remembering()
    with Following(config(), layout, print, {"one": lambda: tracker}):
        add_steps(layout, 1)
        limit = time.monotonic() + 20
        while not tracker.logged:
            assert time.monotonic() < limit, "nothing came within 20 s"
            time.sleep(0.05)


def test_another_start_sends_only_what_is_new(layout: RunLayout) -> None:
    add_steps(layout, 1, 2)
    write_evaluations(layout.evaluations)
    followed(layout)
    add_steps(layout, 3)
    tracker, _ = followed(layout)
    assert [step for step, _ in tracker.logged] == [3]


def test_steps_of_a_dead_timeline_are_sent_again_as_they_came_to_be(layout: RunLayout) -> None:
    tracker = Remembering()
    following = Following(config(), layout, print, {"one": lambda: tracker})
    add_steps(layout, 1, 2, 3)
    following._send()
    layout.metrics.write_text(json.dumps(METRICS | {"step": 1}) + "\n")
    following._send()
    add_steps(layout, 2)
    following._send()
    assert steps_of(tracker) == [1, 2, 3, 2]


def test_a_line_that_is_still_being_written_waits(layout: RunLayout) -> None:
    tracker = Remembering()
    following = Following(config(), layout, print, {"one": lambda: tracker})
    line = json.dumps(METRICS | {"step": 1}) + "\n"
    layout.metrics.write_text(line[:20])
    following._send()
    assert tracker.logged == []
    layout.metrics.write_text(line)
    following._send()
    assert steps_of(tracker) == [1]


def test_a_run_begun_anew_is_tracked_anew(layout: RunLayout) -> None:
    add_steps(layout, 1, 2)
    followed(layout)
    record = RunRecord("toy", "0", "orpo-ray", PhaseState.DONE, "", None, {})
    start_anew(record, layout)
    add_steps(layout, 1)
    tracker, _ = followed(layout)
    assert steps_of(tracker) == [1]


def test_a_tracker_that_fails_is_told_of_once_and_the_other_goes_on(layout: RunLayout) -> None:
    good, bad, warnings = Remembering(), Remembering(fails_at=2), list[str]()

    def broken() -> Remembering:
        raise OSError("disk full")

    add_steps(layout, 1, 2, 3)
    opens = {"good": lambda: good, "bad": lambda: bad, "broken": broken}
    with Following(config(), layout, warnings.append, opens):
        pass
    assert steps_of(good) == [1, 2, 3]
    assert steps_of(bad) == [1]
    assert sorted(warnings) == [
        "tracking.bad: failed (ConnectionError: no route to host); the run goes on without it",
        "tracking.broken: failed (OSError: disk full); the run goes on without it",
    ]


def test_a_tracker_that_cannot_be_closed_is_told_of(layout: RunLayout) -> None:
    class Stuck(Remembering):
        def close(self) -> None:
            raise RuntimeError

    warnings: list[str] = []
    trackers = Trackers({"stuck": Stuck}, warnings.append)
    trackers.log({"a": 1.0}, 0)
    trackers.close()
    assert warnings == ["tracking.stuck: failed (RuntimeError: no message); the run goes on without it"]


def test_a_run_without_a_tracker_starts_no_thread(layout: RunLayout) -> None:
    before = threading.active_count()
    with Following(config(tensorboard=False), layout, print):
        assert threading.active_count() == before


def test_a_file_that_cannot_be_read_ends_tracking_and_not_the_run(layout: RunLayout) -> None:
    layout.metrics.write_text("no json\n")
    _, warnings = followed(layout)
    (warning,) = warnings
    assert warning.startswith("tracking: JSONDecodeError")


@pytest.mark.parametrize(("name", "value"), [("mlflow", True), ("wandb", "offline")])
def test_a_package_that_is_missing_is_said_before_the_run(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=rf"tracking.{name}: the package {name} is not installed.*orpo-ray\[{name}\]"):
        check_trackers(config(**{name: value}))
    check_trackers(config())


def test_what_was_sent_from_another_machine_is_read_once_the_run_has_come_down(layout: RunLayout) -> None:
    """A run from its mirror: run.json comes last, behind the memory of what was sent."""
    layout.state.unlink()
    tracker = Remembering()
    with Following(config(), layout, lambda text: None, {"one": lambda: tracker}):
        time.sleep(1.2)  # a look at a run that is not here yet
        add_steps(layout, 1, 2, 3)
        layout.tracked.write_text(json.dumps({"step": 2, "evaluations": [], "ids": {}}))
        layout.state.touch()
    assert [step for step, _ in tracker.logged] == [3]
