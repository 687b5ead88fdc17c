"""Progress of a run from its events: bars on a terminal, a plain line now and then anywhere else."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from orpo_ray.evaluation.accuracy import Accuracy
from orpo_ray.report.wording import duration, percent, phase_sentence, places_sentence

PLAIN_EVERY_S = 10.0
"""Seconds between two plain lines of one phase; a new phase or epoch gets its line at once."""


@dataclass(frozen=True)
class Progressed:
    """How far a phase is.

    Attributes:
        details: rates and means, for people.
        epoch: of training; None in phases that have none.
    """

    phase: str
    done: int
    total: int
    details: str
    epoch: int | None = None


def progressed(kind: str, fields: Mapping[str, Any]) -> Progressed | None:
    """What an event says about progress; None for any other event."""
    phase, _, what = kind.partition(".")
    if phase in ("teach", "seed") and what in ("progress", "test"):
        details = f"{fields['traces_per_s']:.1f} traces/s"
        if what == "test":
            details = f"test prompts, {details}"
        elif fields.get("traces"):
            details += f", {percent(fields['right'] / fields['traces'])} right"
        return Progressed(phase.upper(), fields["done"], fields["total"], details)
    if kind == "distill.progress":
        details = (
            f"epoch {fields['epoch']}, loss {fields['loss']:.4f}, {fields['pairs_per_s']:.1f} pairs/s, "
            f"staleness {fields['staleness']:.2f}, version {fields['version']}"
        )
        return Progressed("DISTILL", fields["step"], fields["steps"], details, fields["epoch"])
    return None


def remark(kind: str, fields: Mapping[str, Any]) -> str | None:
    """The line that an event deserves for good; None for progress and for what is said elsewhere."""
    if kind in ("phase.done", "phase.found"):
        verb = "done in" if kind == "phase.done" else "found; took"
        sentence = phase_sentence(fields["phase"], fields.get("result", {}))
        return f"{fields['phase']:<8} {verb} {duration(fields['seconds'])}" + (f": {sentence}" if sentence else "")
    if kind == "evaluate.done":
        when = f"after epoch {fields['epoch']}" if fields["epoch"] else "before training"
        return f"         {when}, {fields['split']}: {Accuracy(fields['correct'], fields['total'])}"
    if kind == "teach.ready" and fields["url"]:  # recorded traces are at no address, and need no start
        return f"         teacher ready after {duration(fields['seconds'])} at {fields['url']}"
    if kind == "mirror.behind":
        return (
            f"         the mirror waits for {fields['waits_for']} since {duration(fields['seconds'])} "
            f"({fields['error']}); the run goes on, and tries again"
        )
    if kind == "mirror.caught_up":
        return f"         the mirror is whole again, after {duration(fields['seconds'])}"
    if kind == "distill.places":
        return f"         {places_sentence(fields)}"
    if kind == "distill.left":
        return f"         attempt {fields['attempt']} ended at a checkpoint: {fields['why']}"
    if kind == "note":
        return f"         {fields['text']}"
    return None


class Remaining:
    """Time left in each phase, from its pace since this start: a resumed phase is not credited with what was there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: dict[tuple[str, int], tuple[int, float]] = {}

    def __call__(self, at: Progressed) -> float | None:
        """Seconds, or None where the pace is not known yet."""
        now = self._clock()
        done, since = self._first.setdefault((at.phase, at.total), (at.done, now))
        if at.done <= done or now <= since:
            return None
        return (at.total - at.done) * (now - since) / (at.done - done)


class PlainProgress:
    """Lines for a log. A listener of a run's events."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._remaining = Remaining(clock)
        self._last: tuple[str, int | None] | None = None
        self._printed = 0.0

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, kind: str, fields: Mapping[str, Any]) -> None:
        at = progressed(kind, fields)
        if at is not None:
            self._progress(at)
            return
        line = f"{fields['phase']:<8} …" if kind == "phase.start" else remark(kind, fields)
        if line is not None:
            self._print(line)

    def _progress(self, at: Progressed) -> None:
        now, left = self._clock(), self._remaining(at)
        if self._last == (at.phase, at.epoch) and now - self._printed < PLAIN_EVERY_S and at.done < at.total:
            return
        self._last, self._printed = (at.phase, at.epoch), now
        rest = f", {duration(left)} left" if left is not None and at.done < at.total else ""
        self._print(f"{at.phase:<8} {at.done:,}/{at.total:,} ({at.details}{rest})")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """A bar for the phase that works, a line for each that is through. A listener of a run's events."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._remaining = Remaining(clock)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", justify="right"),
            TextColumn("{task.fields[details]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "LiveProgress":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "phase.start":
            self._end()
            self._task = self._progress.add_task(fields["phase"], total=None, count="", details="", left="")
        elif (at := progressed(kind, fields)) is not None:
            self._update(at)
        else:
            if kind in ("phase.done", "phase.found", "run.failed", "run.interrupted"):
                self._end()
            line = remark(kind, fields)
            if line is not None:
                self._progress.console.print(line, markup=False, highlight=False)

    def _update(self, at: Progressed) -> None:
        if self._task is None:
            return
        left = self._remaining(at)
        self._progress.update(
            self._task,
            completed=at.done,
            total=at.total,
            count=f"{at.done:,}/{at.total:,}",
            details=at.details,
            left="" if left is None or at.done >= at.total else f"{duration(left)} left",
        )

    def _end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def progress_on(console: Console) -> PlainProgress | LiveProgress:
    """Bars where `console` is a terminal, plain lines where it is a file or a pipe."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
