"""What can be done with runs on a cluster, as steps that either client takes."""

import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orpo_ray import __version__
from orpo_ray.client import jobs
from orpo_ray.client.errors import (
    ClusterError,
    ClusterUnreachableError,
    RefusedError,
    RunNotFinishedError,
    UnknownRunError,
)
from orpo_ray.client.files import What, parse_printed, read_lines
from orpo_ray.client.jobs import Job, Placement
from orpo_ray.client.package import CONFIG_FILE, make_package
from orpo_ray.client.result import RunResult, run_result
from orpo_ray.client.status import NAME, STORAGE, RunState, RunStatus, read_log, run_state, run_status
from orpo_ray.client.steps import Emit, Sleep, Steps, T, Work
from orpo_ray.config import RunConfig, dump_config, load_config, parse_config
from orpo_ray.errors import InputError, WaitTimeout

Configuration = RunConfig | Mapping[str, Any] | str | Path

POLL_S = 1.0
STOP_S = 60
"""Seconds that Ray gives a driver which is stopped, to put the run on record and to leave the cluster clean."""

_READ_S = 300.0
_UNREACHED, _UNREACHED_S = 5, 3.0
_RUNS = re.compile(r"(?:^|[\s/;&])orpo-ray (?:run|demo)\b")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True)
class Here:
    """A cluster of the client's own, on this machine, which sees what the client sees.

    Attributes:
        directory: for the files that submissions need.
        check: raises InputError where a configuration asks for more than the machine has.
    """

    directory: Path
    check: Callable[[RunConfig], None]


@dataclass(frozen=True)
class Submission:
    """How a configuration is to be run.

    Attributes:
        fresh: remove what the run's distillation left, and start it anew.
        placement: where the driver goes; on the head where None.
        working_dir: sent along as the job's working directory, for tasks of one's own.
        env: environment variables of driver and workers. None of them a secret: a job's environment is public.
    """

    fresh: bool = False
    placement: Placement | None = None
    working_dir: Path | None = None
    env: Mapping[str, str] | None = None


def submit(configuration: Configuration, how: Submission, here: Here | None) -> Steps[str]:
    """Submit a run; its id. The same name and storage go on where the last submission stopped."""
    config = yield Work(lambda: checked(configuration, how, here))
    active = yield from _active(config)
    if active is not None:
        raise RefusedError(
            f"{config.name}: {active} works on this run already; wait for it, stop it with `orpo-ray stop {active}`, or "
            "give this one a name of its own"
        )
    identity = f"{config.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    runtime_env: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), **(how.env or {})}}
    command = ["orpo-ray", "run", CONFIG_FILE, *(["--fresh"] if how.fresh else [])]
    if here is None:
        package = yield Work(lambda: make_package(config, how.working_dir))
        runtime_env["working_dir"] = yield from jobs.upload_package(package.name, package.content)
        entrypoint = shlex.join(command)
    else:
        directory = how.working_dir or Path.cwd()
        command[2] = str((yield Work(lambda: _write(config, here.directory / f"{identity}.yaml"))))
        entrypoint = f"cd {shlex.quote(str(directory.resolve()))} && exec {shlex.join(command)}"
    return (
        yield from jobs.submit_job(
            {
                "entrypoint": entrypoint,
                "submission_id": identity,
                "runtime_env": runtime_env,
                "metadata": {NAME: config.name, STORAGE: config.storage.path, "orpo_ray.version": __version__},
                **(how.placement or Placement()).to_json(),
            }
        )
    )


def checked_shape(configuration: Configuration) -> RunConfig:
    """The configuration in a file or a mapping.

    Raises:
        ConfigError, InputError: what is wrong with it.
    """
    if isinstance(configuration, RunConfig):
        return configuration
    if isinstance(configuration, str | Path):
        return load_config(configuration)
    return parse_config(configuration)


def checked(configuration: Configuration, how: Submission, here: Here | None) -> RunConfig:
    """The configuration, if it may be submitted.

    Raises:
        ConfigError, InputError: what is wrong with it.
    """
    config = checked_shape(configuration)
    secret = [name for name in how.env or {} if _SECRET.search(name)]
    if secret:
        raise InputError(
            f"--env: {', '.join(secret)} would be a secret for all to read: a job's environment is shown by Ray's "
            "dashboard and API. Put it into the environment of the cluster's nodes, as a Kubernetes Secret"
        )
    storage = Path(config.storage.path)
    if here is not None:
        here.check(config)
        storage = storage.resolve()
    elif not storage.is_absolute():
        raise InputError(
            f"storage.path: {storage} is relative, and a job's working directory is gone with the job; give an absolute "
            "path that every node of the cluster sees"
        )
    return config.model_copy(update={"storage": config.storage.model_copy(update={"path": str(storage)})})


def runs() -> Steps[list[str]]:
    """Ids of all jobs of the cluster that run, or ran, `orpo-ray run`; oldest first."""
    found = yield from jobs.submitted_jobs()
    return [job.id for job in found if _is_run(job)]


def find(identity: str) -> Steps[str]:
    """The id of a run that is given by its id, or by its name: then the newest.

    Raises:
        UnknownRunError: there is none; names those that are there.
    """
    found = [job for job in (yield from jobs.submitted_jobs()) if _is_run(job)]
    for job in found:
        if job.id == identity:
            return job.id
    for job in reversed(found):
        if (yield from _named(job))[0] == identity:
            return job.id
    known = ", ".join(job.id for job in found[-5:])
    raise UnknownRunError(
        f"{identity}: the cluster knows no run of this name or id; "
        + (f"the newest there are {known}" if known else "there are none")
    )


def newest_of(name: str, storage: str) -> Steps[tuple[str, RunState] | None]:
    """Id and state of the newest job on the run `name` below `storage`; None where the cluster knows none."""
    for job in reversed((yield from jobs.submitted_jobs())):
        if _is_run(job) and (yield from _named(job)) == (name, storage):
            return job.id, run_state(job)
    return None


def status(identity: str) -> Steps[RunStatus]:
    """Where a run stands."""
    job = yield from _known(identity)
    return run_status(job, (yield from _log(job)))


def wait(identity: str, timeout: float | None) -> Steps[RunStatus]:
    """Wait until a run is over.

    Raises:
        RefusedError, RunFailedError: as `RunStatus.check`.
        WaitTimeout: it works on after `timeout` seconds.
    """
    began = time.monotonic()
    while True:
        job = yield from _patiently(lambda: _known(identity))
        if job.over:
            break
        if timeout is not None and time.monotonic() - began >= timeout:
            now = yield from status(identity)
            raise WaitTimeout(
                f"{identity} was not over within {timeout:g} s: it is {now.state}"
                + (f" in {now.phase}" if now.phase else "")
                + ", and goes on"
            )
        yield Sleep(POLL_S)
    ended = yield from status(identity)
    ended.check()
    return ended


def follow(identity: str, *, on: bool) -> Steps[None]:
    """Emit what the run has printed and, if `on`, what it prints until it is over."""
    seen = 0
    while True:
        # In this order: what is printed before the end is in the log that is read after it.
        job = yield from _patiently(lambda: _known(identity))
        text = yield from _log(job)
        if len(text) > seen:
            yield Emit(text[seen:])
            seen = len(text)
        if job.over or not on:
            return
        yield Sleep(POLL_S)


def stop(identity: str) -> Steps[RunStatus]:
    """Stop a run, and wait until its driver has ended; nothing happens to one that is over.

    Raises:
        WaitTimeout: it did not end in time.
    """
    end = time.monotonic() + STOP_S + 30
    job = yield from _known(identity)
    if not job.over:
        yield from jobs.stop_job(identity)
    while not job.over:
        if time.monotonic() > end:
            raise WaitTimeout(f"{identity} was asked to stop, and is {job.status} still after {STOP_S + 30} s")
        yield Sleep(POLL_S / 2)
        job = yield from _known(identity)
    return run_status(job, (yield from _log(job)))


def lines(identity: str, what: What, limit: int | None, here: Here | None) -> Steps[list[dict[str, Any]]]:
    """What the run's files say: read here where its storage is a directory that the client sees, else on the cluster.

    Raises:
        RunNotFinishedError: the run has not come so far that it has files.
    """
    job = yield from _known(identity)
    name, storage = yield from _named(job)
    if not name or not storage or not _RUN_NAME.fullmatch(name):
        raise RunNotFinishedError(f"{identity} is {job.status} and has not said yet which run it is; wait a moment")
    directory = Path(storage)
    if here is not None or (yield Work(directory.is_dir)):
        found: list[dict[str, Any]] = yield Work(lambda: list(read_lines(directory, name, what, limit)))
        return found
    return (yield from _read_there(storage, name, what, limit))


def result(identity: str, here: Here | None) -> Steps[RunResult]:
    """What a finished run comes to.

    Raises:
        RefusedError, RunFailedError: as `RunStatus.check`.
        RunNotFinishedError: it works still, or was stopped.
    """
    now = yield from status(identity)
    now.check()
    if now.state is not RunState.DONE:
        raise RunNotFinishedError(f"{identity} is {now.state}" + (f" in {now.phase}" if now.phase else ""))
    reports = yield from lines(identity, What.REPORT, None, here)
    if not reports or reports[0]["student"] is None:
        raise ClusterError(f"{identity} is done, but its files in {now.storage} are gone")
    return run_result(reports[0])


def _read_there(storage: str, name: str, what: What, limit: int | None) -> Steps[list[dict[str, Any]]]:
    """Read a run's files by a job on the head, which must see the storage."""
    command = ["orpo-ray", "read", name, what, "--storage", storage]
    command += [] if limit is None else ["--limit", str(limit)]
    identity = yield from jobs.submit_job({"entrypoint": shlex.join(command), "metadata": {"orpo_ray.reads": name}})
    end = time.monotonic() + _READ_S
    job = yield from _known(identity)
    while not job.over:
        if time.monotonic() > end:
            raise WaitTimeout(f"reading {name} on the cluster, job {identity}, was not over within {_READ_S:g} s")
        yield Sleep(POLL_S / 2)
        job = yield from _known(identity)
    found = parse_printed((yield from jobs.job_log(identity)))
    yield from jobs.delete_job(identity)
    return found


def _known(identity: str) -> Steps[Job]:
    found = yield from jobs.job(identity)
    if found is None:
        raise UnknownRunError(f"{identity}: the cluster knows no run of this id (it forgets them when it ends)")
    return found


def _log(job: Job) -> Steps[str]:
    """The log; empty where its node is gone."""
    try:
        return (yield from jobs.job_log(job.id))
    except ClusterError:
        return ""


def _named(job: Job) -> Steps[tuple[str | None, str | None]]:
    """The run's name and storage: of the submission, or, where it was `ray job submit`, of the log."""
    if NAME in job.metadata and STORAGE in job.metadata:
        return job.metadata[NAME], job.metadata[STORAGE]
    facts = read_log((yield from _log(job)))
    return facts.name, facts.storage


def _active(config: RunConfig) -> Steps[str | None]:
    """The id of a job that works on the same run."""
    for job in (yield from jobs.submitted_jobs()):
        if not job.over and _is_run(job):
            name, storage = yield from _named(job)
            if (name, storage) == (config.name, config.storage.path):
                return job.id
    return None


def _is_run(job: Job) -> bool:
    return NAME in job.metadata or bool(_RUNS.search(job.entrypoint))


def _patiently(steps: Callable[[], Steps[T]]) -> Steps[T]:
    """Through a short loss of the connection, as when a forwarded port is set up anew."""
    for _ in range(_UNREACHED):
        try:
            return (yield from steps())
        except ClusterUnreachableError:
            yield Sleep(_UNREACHED_S)
    return (yield from steps())


def _write(config: RunConfig, file: Path) -> Path:
    file.write_text(dump_config(config), encoding="utf-8")
    return file
