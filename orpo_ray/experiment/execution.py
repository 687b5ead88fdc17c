"""Makes an experiment's runs: each an ordinary `orpo-ray run` in a process of its own, several at a time where they fit.

A run that is finished is skipped, one that was cut off goes on, one that fails does not end the others. Runs that share
traces do not make them at the same time: one makes them, the others find them.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from orpo_ray.config import RunConfig, dump_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller.record import PhaseState, read_record
from orpo_ray.errors import InputError
from orpo_ray.experiment.report_files import report_directory, write_whole
from orpo_ray.experiment.results import is_finished
from orpo_ray.experiment.runs import PlannedRun, student_key, traces_key
from orpo_ray.phases.needs import GIB, machine_memory, required_resources
from orpo_ray.report.wording import duration

Say = Callable[[str], None]
Command = Callable[[Path], list[str]]

# Loaded here, since a forked child of a process with threads must not import.
_LIBC = ctypes.CDLL(None)

HEARTBEAT_S = 60.0
"""Seconds between two lines about a run that works."""


def run_command(file: Path) -> list[str]:
    """The command line of one run."""
    return [sys.executable, "-m", "orpo_ray.cli", "run", str(file)]


@dataclass
class Outcome:
    """How it went.

    Attributes:
        skipped: runs that were finished before.
        failed: why a run is not, by its name.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class _Child:
    """A run that works."""

    run: PlannedRun
    process: subprocess.Popen[bytes]
    log: Path
    began: float
    gpus: tuple[str, ...]
    told: float


class Execution:
    """Takes the runs of an experiment to their ends.

    Args:
        name: the experiment's.
        say: is told what happens, one line at a time.
        after: called after each run that ends, with what has failed so far.
        command: what a run is started with; tests put another program behind it.
    """

    def __init__(
        self,
        name: str,
        runs: Sequence[PlannedRun],
        storage: Path,
        *,
        parallel: int = 1,
        say: Say = print,
        after: Callable[[Mapping[str, str]], None] = lambda failed: None,
        command: Command = run_command,
        poll_s: float = 0.5,
    ) -> None:
        self._directory, self._storage, self._parallel = report_directory(storage, name), storage, parallel
        self._say, self._after, self._command, self._poll_s = say, after, command, poll_s
        self._runs = list({run.name: run for run in reversed(runs)}.values())[::-1]
        self._children: list[_Child] = []
        self._free_gpus = visible_gpus()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Make every run that is not finished. KeyboardInterrupt stops those that work, cleanly, and is raised on."""
        waiting = []
        for run in self._runs:
            if is_finished(run, self._storage):
                self.outcome.skipped.append(run.name)
            else:
                waiting.append(run)
        self._say(f"{len(self._runs)} runs, {len(self.outcome.skipped)} of them finished already")
        try:
            while waiting or self._children:
                self._reap()
                for run in list(waiting):
                    if len(self._children) < self._parallel and self._may_start(run):
                        waiting.remove(run)
                        self._start(run)
                if waiting or self._children:
                    time.sleep(self._poll_s)
        except BaseException:
            self._stop()
            raise
        return self.outcome

    def _may_start(self, run: PlannedRun) -> bool:
        """Whether nobody is making traces that it would find, and its GPUs are free."""
        if self._free_gpus and len(self._free_gpus) < _gpus(run.config) and self._children:
            return False
        for child in self._children:
            other = child.run.config
            teaches = other.trains and run.config.trains and traces_key(other) == traces_key(run.config)
            if teaches and not self._is_past(child, "TEACH"):
                return False
            seeds = student_key(other)
            if seeds is not None and seeds == student_key(run.config) and not self._is_past(child, "SEED"):
                return False
        return True

    def _is_past(self, child: _Child, phase: str) -> bool:
        record = read_record(RunLayout(self._storage, child.run.name).state)
        at = record.phases.get(phase) if record is not None else None
        return at is not None and at.state is PhaseState.DONE

    def _start(self, run: PlannedRun) -> None:
        config = run.config
        if self._parallel > 1 and config.teacher.backend == "serve":
            # Two teachers cannot listen at one port.
            serve = config.teacher.serve.model_copy(update={"port": 0})
            config = config.model_copy(update={"teacher": config.teacher.model_copy(update={"serve": serve})})
        file, log = self._directory / "runs" / f"{run.name}.yaml", self._directory / "logs" / f"{run.name}.log"
        write_whole(file, dump_config(config))
        log.parent.mkdir(parents=True, exist_ok=True)
        environment, gpus = dict(os.environ), self._take_gpus(_gpus(config))
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        with log.open("ab") as output:
            process = self._spawn(self._command(file), environment, output)
        now = time.monotonic()
        self._children.append(_Child(run, process, log, now, gpus, now))
        number = len(self.outcome.done) + len(self.outcome.skipped) + len(self.outcome.failed) + len(self._children)
        self._say(f"[{number}/{len(self._runs)}] {run.title}")

    def _spawn(self, command: list[str], environment: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        # In a session of its own: Ctrl-C at the terminal is passed on once, by us, and not seen twice.
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    def _reap(self) -> None:
        for child in list(self._children):
            status = child.process.poll()
            if status is not None:
                self._children.remove(child)
                self._free_gpus += child.gpus
                self._ended(child, status)
            elif time.monotonic() - child.told > HEARTBEAT_S:
                child.told = time.monotonic()
                self._say(f"      {child.run.title}: {last_line(child.log)}")

    def _ended(self, child: _Child, status: int) -> None:
        run, took = child.run, duration(time.monotonic() - child.began)
        if status == 0 and is_finished(run, self._storage):
            self.outcome.done.append(run.name)
            self._say(f"      done in {took}: {run.title}")
        else:
            why = self._why(child, status)
            self.outcome.failed[run.name] = why
            self._say(f"      failed after {took}: {run.title}: {why}")
        self._after(self.outcome.failed)

    def _why(self, child: _Child, status: int) -> str:
        """One line: what the run's record says, else what it printed last."""
        try:
            record = read_record(RunLayout(self._storage, child.run.name).state)
        except InputError as error:
            return str(error)
        if record is not None and record.state is PhaseState.FAILED and record.error:
            return record.error.splitlines()[0]
        ended = f"signal {-status}" if status < 0 else f"exit code {status}"
        return f"{ended}: {last_line(child.log)}"

    def _stop(self) -> None:
        """End the runs that work as Ctrl-C would, and wait for them: each puts on record where it stopped."""
        for child in self._children:
            if child.process.poll() is None:
                self._say(f"      stopping: {child.run.title}")
                child.process.send_signal(signal.SIGINT)
        for child in self._children:
            child.process.wait()

    def _take_gpus(self, count: int) -> tuple[str, ...]:
        """GPUs for one run, where this machine has any; a run alone has all of them."""
        if self._parallel == 1 or not count:
            return ()
        taken, self._free_gpus = self._free_gpus[:count], self._free_gpus[count:]
        return tuple(taken)


def check_parallel(runs: Sequence[PlannedRun], parallel: int) -> None:
    """Raises InputError where `parallel` runs do not fit this machine together; a cluster looks after itself."""
    if parallel == 1 or os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        return
    needed = max(max(need["memory"] for need in required_resources(run.config).values()) for run in runs)
    fits = max(1, int(machine_memory() // needed)) if needed else parallel
    if fits < parallel:
        raise InputError(
            f"parallel: {parallel} runs at a time need {parallel * needed / GIB:.1f} GiB of memory, there is "
            f"{machine_memory() / GIB:.1f} GiB; take {fits}"
        )
    gpus, each = visible_gpus(), max(_gpus(run.config) for run in runs)
    if gpus and each and len(gpus) // each < parallel:
        raise InputError(
            f"parallel: {parallel} runs of {each} GPUs at a time need {parallel * each}, there are {len(gpus)}; take "
            f"{max(1, len(gpus) // each)}"
        )


def visible_gpus() -> tuple[str, ...]:
    """Names of this machine's GPUs as CUDA_VISIBLE_DEVICES has them; none where there is none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name for name in named.split(",") if name.strip() and name.strip() != "-1")
    devices = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(sorted((name for name in devices if name.isdigit()), key=int))


def _gpus(config: RunConfig) -> int:
    """Most GPUs that a phase of the run asks for, as whole ones."""
    return int(-(-max(need["GPU"] for need in required_resources(config).values()) // 1))


def last_line(log: Path) -> str:
    """The last line that a run printed."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "nothing printed"
    return next((line for line in reversed(lines) if line), "nothing printed")


def _end_with_parent() -> None:
    """In the child: SIGTERM when the parent dies, however it dies (Linux's PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, signal.SIGTERM)
