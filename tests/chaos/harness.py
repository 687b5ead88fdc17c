"""Kills a run's processes one after another at seeded moments, waits until it has recovered, and judges its ledger."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from orpo_ray.phases.metrics_tail import read_metrics
from orpo_ray.training.ledger import read_ledger
from tests.chaos.run import STEPS_AN_EPOCH, chaos_context, plan_of
from tests.chaos.verdict import Verdict, judge_ledger, largest_difference
from tests.chaos.victims import DRIVER, KINDS, kill_family, processes_of

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 300.0
_MOST_STEPS_APART = 3


@dataclass(frozen=True)
class Kill:
    """One kill, as planned: `after` more steps than had been trained when the last one was recovered from, `delay` s on."""

    kind: str
    after: int
    delay: float
    chosen: float


@dataclass(frozen=True)
class Death:
    """One kill, as it was.

    Attributes:
        step: the last optimizer step in the ledger when it struck.
        at_s: seconds since the run was first started.
        recovery_s: seconds until a later step was trained and a process of this kind lived again.
    """

    kind: str
    step: int
    at_s: float
    recovery_s: float


@dataclass(frozen=True)
class Outcome:
    """A run that came to its end.

    Attributes:
        evaluated: the epochs that EVALUATE ended with.
        notes: what the run said of what it made up for.
    """

    deaths: list[Death]
    verdict: Verdict
    metrics: list[dict[str, Any]]
    evaluated: list[int]
    notes: list[str]
    epochs: int
    global_batch: int = field(repr=False)

    def table(self, undisturbed: "Outcome | None" = None) -> str:
        """The kills in Markdown; a lost or repeated row is laid to the last kill before its step."""
        lines = [
            "| # | killed | after step | at, s | recovered in, s | rows lost | rows repeated |",
            "|---|---|---|---|---|---|---|",
        ]
        for number, death in enumerate(self.deaths):
            until = self.deaths[number + 1].step if number + 1 < len(self.deaths) else sys.maxsize
            since = death.step if number else 0
            lost, repeated = (
                sum(since <= row // self.global_batch < until for row in rows)
                for rows in (self.verdict.lost, self.verdict.repeated)
            )
            lines.append(
                f"| {number + 1} | {death.kind} | {death.step} | {death.at_s:.1f} | {death.recovery_s:.1f} "
                f"| {lost} | {repeated} |"
            )
        lines += ["", f"rows at another place than the plan's: {len(self.verdict.misplaced)}"]
        if undisturbed is not None:
            gap = largest_difference(self.metrics, undisturbed.metrics)
            lines.append(f"largest difference of a step's loss from the undisturbed run's: {gap:.1e}")
        return "\n".join(lines)


def planned_kills(count: int, seed: int, kinds: Sequence[str] = KINDS) -> list[Kill]:
    """`count` kills: every kind in turn, each turn in an order of its own, at moments of their own."""
    chance = random.Random(seed)
    order: list[str] = []
    while len(order) < count:
        order += chance.sample(kinds, len(kinds))
    return [
        Kill(kind, chance.randint(1, _MOST_STEPS_APART), chance.uniform(0.0, 0.6), chance.random())
        for kind in order[:count]
    ]


def epochs_for(kills: int) -> int:
    """Long enough that the last kill falls before the end: each costs its steps and those until it is recovered from."""
    return 1 + -(-kills * (_MOST_STEPS_APART + 2) // STEPS_AN_EPOCH)


def run_under(
    kills: Sequence[Kill],
    directory: Path,
    student: Path,
    epochs: int,
    say: Callable[[Death], None] = lambda death: None,
) -> Outcome:
    """Run to the end under `kills`; `say` is told of each once it is recovered from.

    Raises:
        AssertionError: the run ended by itself, or did not recover within 5 minutes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    begun, deaths = time.monotonic(), []
    with _Run(directory, student, epochs) as run:
        reached = 0
        for kill in kills:
            run.wait(lambda step=reached + kill.after: run.step() >= step, f"step {reached + kill.after}")
            time.sleep(kill.delay)
            run.wait(lambda kill=kill: run.strike(kill), f"a {kill.kind} to kill")
            step, at = run.step(), time.monotonic()
            run.wait(
                lambda kind=kill.kind, step=step: run.step() > step and bool(processes_of(kind, run.driver)),
                f"the run to get over a killed {kill.kind}",
            )
            deaths.append(Death(kill.kind, step, at - begun, time.monotonic() - at))
            say(deaths[-1])
            reached = run.step()
        run.wait(lambda: run.result.exists(), "the end", may_end=True)
        run.process.wait(_PATIENCE_S)
    context = chaos_context(directory, student, epochs)
    lines = list(read_ledger(context.layout.ledger))
    return Outcome(
        deaths=deaths,
        verdict=judge_ledger(lines, plan_of(context)),
        metrics=list(read_metrics(context.layout.metrics)),
        evaluated=json.loads((directory / "result.json").read_text())["evaluated"],
        notes=[line["text"] for line in read_metrics(directory / "notes.txt") if line["kind"] == "note"],
        epochs=epochs,
        global_batch=context.config.train.global_batch,
    )


class _Run:
    """The driver's process, and what can be seen of it from outside."""

    def __init__(self, directory: Path, student: Path, epochs: int) -> None:
        self.directory, self.result = directory, directory / "result.json"
        self._command = [sys.executable, "-m", "tests.chaos.run", str(directory), str(student), str(epochs)]
        self._metrics = chaos_context(directory, student, epochs).layout.metrics
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        kill_family(self.driver)
        self.process.wait()

    def step(self) -> int:
        """The last optimizer step that was trained; lines of a dead timeline go when the next attempt begins."""
        return max((line["step"] for line in read_metrics(self._metrics)), default=0)

    def strike(self, kill: Kill) -> bool:
        """Whether there was a process to kill; it is dead then."""
        if kill.kind == DRIVER:
            kill_family(self.driver)
            self.process.wait()
            self._start()
            return True
        victims = processes_of(kill.kind, self.driver)
        try:
            victim = victims[int(kill.chosen * len(victims))]
            victim.kill()
        except (IndexError, psutil.NoSuchProcess):
            return False
        with suppress(psutil.NoSuchProcess):
            end = time.monotonic() + 30
            while victim.is_running() and victim.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
                time.sleep(0.01)
        return True

    def wait(self, condition: Callable[[], bool], what: str, *, may_end: bool = False) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not condition():
            code = self.process.poll()
            assert code is None or (may_end and code == 0), f"the run ended ({code}) before {what}:\n{self._tail()}"
            assert time.monotonic() < end, f"waited {_PATIENCE_S:g} s for {what}:\n{self._tail()}"
            time.sleep(0.05)

    def _start(self) -> None:
        with (self.directory / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.driver = psutil.Process(self.process.pid)

    def _tail(self) -> str:
        notes = self.directory / "notes.txt"
        said = notes.read_text()[-2000:] if notes.exists() else ""
        return said + (self.directory / "output.txt").read_text(errors="replace")[-4000:]
