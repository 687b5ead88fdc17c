"""Where a run stands, from what its job and its log say."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from orpo_ray.client.errors import RefusedError, RunFailedError
from orpo_ray.client.jobs import Job
from orpo_ray.controller import ORDER
from orpo_ray.errors import InputError, OrpoRayError

_INPUT_ERROR = InputError.exit_code
_SIGNALLED = (130, 143)
_PHASE = re.compile(rf"^({'|'.join(ORDER)}) +\S")
_PLACE = re.compile(r"^run (\S+) at (/.*)$")
_MESSAGE = "orpo-ray: "
# The controller's hint how to go on, which is the client's to give here.
_HINTS = ("What is finished is kept.", "The traceback is in")


class RunState(StrEnum):
    """Where a run stands. `REFUSED` is a failure that the input is to blame for; `STOPPED` one that was wanted."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    STOPPED = "stopped"

    @property
    def over(self) -> bool:
        return self not in (RunState.PENDING, RunState.RUNNING)


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment.

    Attributes:
        id: of the job that it is, or was.
        name: the run's, `name` in its configuration; None where it has not said so yet.
        storage: the directory that it lies in under its name, as the cluster sees it.
        phase: the phase that works, or worked last; None before the first.
        message: what it waits for, or why it failed.
        exit_code: of the driver: 0, 1 for a failure, 2 for bad input; None while it works or where it was killed.
        started, ended: in UTC.
        node: Ray's id of the node that the driver works on.
    """

    id: str
    name: str | None
    storage: str | None
    state: RunState
    phase: str | None
    message: str
    exit_code: int | None
    started: datetime | None
    ended: datetime | None
    node: str | None

    def check(self) -> None:
        """Raises what a run that ended badly calls for.

        Raises:
            RefusedError: its configuration, models or data were refused; the message names each mistake.
            RunFailedError: it failed; the error knows the phase and the reason.
        """
        error = self.error()
        if error is not None:
            raise error

    def error(self) -> OrpoRayError | None:
        """The error that `check` raises."""
        if self.state is RunState.REFUSED:
            return RefusedError(self.message)
        if self.state is RunState.FAILED:
            return RunFailedError(self.id, self.phase, self.message)
        return None


@dataclass(frozen=True)
class LogFacts:
    """What a driver's log says: the run's name and storage, the phase that it came to, and its last message."""

    name: str | None = None
    storage: str | None = None
    phase: str | None = None
    message: str = ""


def read_log(log: str) -> LogFacts:
    """The facts in what `orpo-ray run` prints as a job."""
    name = storage = phase = None
    lines = log.splitlines()
    for line in lines:
        if name is None and (place := _PLACE.match(line)):
            name, storage = place[1], place[2].removesuffix(f"/{place[1]}")
        elif found := _PHASE.match(line):
            phase = found[1]
    begins = [at for at, line in enumerate(lines) if line.startswith(_MESSAGE)]
    message = ""
    if begins:
        said = [lines[begins[-1]].removeprefix(_MESSAGE), *lines[begins[-1] + 1 :]]
        ends = [at for at, line in enumerate(said) if line.startswith(_HINTS)]
        message = "\n".join(said[: ends[0] if ends else None]).strip()
    return LogFacts(name, storage, phase, message)


def run_status(job: Job, log: str) -> RunStatus:
    """The status of the run that is `job`."""
    facts = read_log(log)
    state = run_state(job)
    message = ""
    if state in (RunState.FAILED, RunState.REFUSED):
        # Without a word of its own the driver was killed, or never started; Ray then says which.
        message = facts.message or _last_line(job.message)
    elif state is RunState.PENDING:
        message = job.message
    return RunStatus(
        id=job.id,
        name=job.metadata.get(NAME) or facts.name,
        storage=job.metadata.get(STORAGE) or facts.storage,
        state=state,
        phase=facts.phase,
        message=message,
        exit_code=job.exit_code,
        started=_time(job.started),
        ended=_time(job.ended),
        node=job.node,
    )


# What a submission says of itself in the job's metadata.
NAME, STORAGE = "orpo_ray.run", "orpo_ray.storage"


def run_state(job: Job) -> RunState:
    """How the run that is `job` does."""
    match job.status:
        case "PENDING":
            return RunState.PENDING
        case "RUNNING":
            return RunState.RUNNING
        case "SUCCEEDED":
            return RunState.DONE
        case "STOPPED":
            return RunState.STOPPED
    if job.exit_code == _INPUT_ERROR:
        return RunState.REFUSED
    return RunState.STOPPED if job.exit_code in _SIGNALLED else RunState.FAILED


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)


def run_time(iso: str | None) -> datetime | None:
    """A time as a run's record has it."""
    return None if iso is None else datetime.fromisoformat(iso)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
