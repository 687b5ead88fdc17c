"""Progress from events: plain lines by the clock, bars on a terminal."""

import io

import pytest
from rich.console import Console

from orpo_ray.report.progress import LiveProgress, PlainProgress, progress_on
from tests.unit.report.finished import RESULTS


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def teach(done: int) -> dict[str, object]:
    return {"done": done, "total": 600, "traces_per_s": 61.25, "right": 9, "traces": 10}


def distill(step: int, epoch: int) -> dict[str, object]:
    return {
        "step": step, "steps": 38, "epoch": epoch, "loss": 1.23456, "pairs_per_s": 41.5, "staleness": 0.25, "version": 1,
    }  # fmt: skip


class TestPlain:
    @pytest.fixture
    def progress(self, stream: io.StringIO, clock: Clock) -> PlainProgress:
        return PlainProgress(Console(file=stream, width=200), clock)

    def test_a_line_every_ten_seconds_and_the_last(
        self, progress: PlainProgress, stream: io.StringIO, clock: Clock
    ) -> None:
        for second in range(31):
            clock.now = float(second)
            progress("teach.progress", teach(20 * second))
        assert stream.getvalue().splitlines() == [
            "TEACH    0/600 (61.2 traces/s, 90.0 % right)",
            "TEACH    200/600 (61.2 traces/s, 90.0 % right, 20.0 s left)",
            "TEACH    400/600 (61.2 traces/s, 90.0 % right, 10.0 s left)",
            "TEACH    600/600 (61.2 traces/s, 90.0 % right)",
        ]

    def test_a_line_for_each_epoch(self, progress: PlainProgress, stream: io.StringIO, clock: Clock) -> None:
        for step in range(1, 39):
            clock.now = step / 100
            progress("distill.progress", distill(step, 1 + (step > 19)))
        steps = [line.split()[1] for line in stream.getvalue().splitlines()]
        assert steps == ["1/38", "20/38", "38/38"]
        assert "(epoch 1, loss 1.2346, 41.5 pairs/s, staleness 0.25, version 1)" in stream.getvalue()

    def test_what_was_there_before_this_start_does_not_count_for_the_time_left(
        self, progress: PlainProgress, stream: io.StringIO, clock: Clock
    ) -> None:
        progress("distill.progress", distill(18, 1))
        clock.now = 20.0
        progress("distill.progress", distill(28, 2))
        assert "28/38 (epoch 2, loss 1.2346, 41.5 pairs/s, staleness 0.25, version 1, 20.0 s left)" in stream.getvalue()

    def test_the_other_events(self, progress: PlainProgress, stream: io.StringIO) -> None:
        progress("run.start", {"name": "toy"})
        progress("phase.found", {"phase": "TEACH", "seconds": 70.5, "result": RESULTS["TEACH"]})
        progress("phase.start", {"phase": "SEED"})
        progress("phase.done", {"phase": "SEED", "seconds": 42.0, "result": {}})
        progress("teach.ready", {"url": "http://127.0.0.1:8000/v1", "seconds": 45.2})
        progress("teach.ready", {"url": "", "seconds": 0.0})
        progress("evaluate.done", {"epoch": 0, "split": "test", "correct": 142, "total": 500})
        progress("evaluate.done", {"epoch": 2, "split": "test", "correct": 237, "total": 500})
        progress("note", {"text": "going on from step [19] of 38"})
        progress("mirror.sent", {"checkpoint": "step-000004", "files": 9, "bytes": 900, "seconds": 1.0})
        progress("mirror.behind", {"waits_for": "metrics.jsonl", "seconds": 600.2, "error": "no answer"})
        progress("mirror.caught_up", {"seconds": 905.0})
        progress("some.kind", {"of": "event that came later"})
        assert stream.getvalue().splitlines() == [
            "TEACH    found; took 1 min 10 s: 4,800 traces of 600 prompts, 90.0 % right, 2,013 kept",
            "SEED     …",
            "SEED     done in 42.0 s",
            "         teacher ready after 45.2 s at http://127.0.0.1:8000/v1",
            "         before training, test: 28.4 % (24.6–32.5)",
            "         after epoch 2, test: 47.4 % (43.1–51.8)",
            "         going on from step [19] of 38",
            "         the mirror waits for metrics.jsonl since 10 min 00 s (no answer); the run goes on, and tries again",
            "         the mirror is whole again, after 15 min 05 s",
        ]


def test_bars_on_a_terminal(stream: io.StringIO, clock: Clock) -> None:
    console = Console(file=stream, width=160, force_terminal=True, color_system=None)
    with LiveProgress(console, clock) as progress:
        progress("phase.start", {"phase": "DISTILL"})
        progress("distill.progress", distill(1, 1))
        clock.now = 2.0
        progress("distill.progress", distill(20, 2))
        progress._progress.refresh()
        progress("phase.done", {"phase": "DISTILL", "seconds": 151.0, "result": RESULTS["DISTILL"]})
    text = stream.getvalue()
    assert "20/38" in text
    assert "epoch 2, loss 1.2346, 41.5 pairs/s, staleness 0.25, version 1" in text
    assert "1.9 s left" in text
    assert "DISTILL  done in 2 min 31 s: 4,700 pairs in 38 steps, 41.5 pairs/s, loss 2.312 → 0.875" in text


def test_the_console_decides(stream: io.StringIO) -> None:
    assert isinstance(progress_on(Console(file=stream)), PlainProgress)
    assert isinstance(progress_on(Console(file=stream, force_terminal=True)), LiveProgress)
