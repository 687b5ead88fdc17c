"""`orpo-ray submit`, `status`, `logs`, `stop` and `list`: the Python client for a terminal."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from orpo_ray.cli.execute import console_on
from orpo_ray.client import (
    Client,
    ClusterError,
    ClusterUnreachableError,
    Placement,
    Run,
    RunState,
    RunStatus,
)
from orpo_ray.client.address import is_loopback
from orpo_ray.client.files import BEGIN, END, What, read_lines
from orpo_ray.client.openness import answers_without_token
from orpo_ray.config import RunConfig
from orpo_ray.errors import InputError


def placement(cpus: float, resources: Sequence[str], labels: Sequence[str]) -> Placement | None:
    """Where the driver goes, from the command line's options; None where nothing is asked.

    Raises:
        InputError: one of them is not `NAME=VALUE`, or an amount no number.
    """
    amounts: dict[str, float] = {}
    for name, text in _pairs("--driver-resource", resources).items():
        try:
            amounts[name] = float(text)
        except ValueError:
            raise InputError(f"--driver-resource {name}={text}: write NAME=N, as driver=1") from None
    where = Placement(cpus, amounts, _pairs("--driver-label", labels))
    return where if where.to_json() else None


def variables(given: Sequence[str]) -> dict[str, str]:
    """Environment variables, from `NAME=VALUE`."""
    return _pairs("--env", given)


def submit_run(
    config: RunConfig,
    address: str | None,
    *,
    fresh: bool,
    wait: bool,
    driver: Placement | None,
    working_dir: Path | None,
    env: Mapping[str, str],
) -> None:
    """Submit a run and say how to follow it, or follow it.

    Raises:
        OrpoRayError: as `Client.submit`; with `wait`, also as `_follow`.
    """
    with Client(address) as client:
        if not is_loopback(client.address) and answers_without_token(client.address):
            print(
                f"orpo-ray: WARNING: the cluster at {client.address} asks for no token: whoever reaches it runs code on "
                "it (CVE-2023-48022). Start Ray with RAY_AUTH_MODE=token; see docs/security.md",
                file=sys.stderr,
            )
        run = client.submit(config, fresh=fresh, driver=driver, working_dir=working_dir, env=env)
        option = _again(address)
        if not wait:
            print(f"submitted {run.id}\n  orpo-ray logs -f {run.id}{option}\n  orpo-ray stop {run.id}{option}")
            return
        print(f"submitted {run.id}; Ctrl-C leaves it working", flush=True)
        _follow(run, option)
        ended = run.status()
        if ended.state is RunState.STOPPED:
            print(f"orpo-ray: {run.id} was stopped; submitted again, it goes on", file=sys.stderr)
            sys.exit(143)
        # The log ends with the message already.
        if ended.error() is not None:
            sys.exit(ended.exit_code or 1)


def show_status(run: str, address: str | None, *, as_json: bool) -> None:
    """Print where a run stands."""
    with Client(address) as client:
        status = client.run(run).status()
    if as_json:
        print(_json(status))
        return
    phase = f" in {status.phase}" if status.phase and status.state is not RunState.DONE else ""
    print(f"{status.id}: {status.state}{phase}")
    if status.message:
        print(status.message)
    if status.name and status.storage:
        print(f"files  {status.storage}/{status.name}")


def print_logs(run: str, address: str | None, *, follow: bool) -> None:
    """Print a run's log."""
    with Client(address) as client:
        found = client.run(run)
        if follow:
            _follow(found, _again(address))
            return
        for text in found.logs():
            sys.stdout.write(text)


def stop_run(run: str, address: str | None) -> None:
    """Stop a run, and say what has become of it."""
    with Client(address) as client:
        found = client.run(run)
        over = found.status().state.over
        state = found.stop().state
    print(f"{found.id}: {'was over already: ' if over else ''}{state}")


def list_runs(address: str | None, *, as_json: bool) -> None:
    """Print one line a run."""
    with Client(address) as client:
        statuses = [run.status() for run in client.runs()]
    if as_json:
        for status in statuses:
            print(_json(status))
        return
    if not statuses:
        print("no runs: nothing was submitted since the cluster started")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "run", "state", "phase", "started (UTC)", ""):
        table.add_column(heading)
    for status in statuses:
        started = status.started.strftime("%Y-%m-%d %H:%M:%S") if status.started else ""
        first = status.message.partition("\n")[0]
        table.add_row(status.id, status.name or "", status.state, status.phase or "", started, Text(first))
    console_on(sys.stdout).print(table, highlight=False)


def print_lines(run: str, what: str, storage: Path, limit: int | None) -> None:
    """What `client.files.parse_printed` reads on the other side."""
    kind = What(what)
    print(BEGIN)
    for line in read_lines(storage, run, kind, limit):
        print(json.dumps(line, ensure_ascii=True))
    print(END, flush=True)


def _follow(run: Run, option: str) -> None:
    """Print a run's log until it is over.

    Raises:
        ClusterError: the cluster answered before, and does so no longer.
    """
    try:
        for text in run.logs(follow=True):
            sys.stdout.write(text)
            sys.stdout.flush()
    except ClusterUnreachableError as error:
        raise ClusterError(
            f"{run.id}: lost sight of it, and it may work on: {error}. Follow it again with "
            f"`orpo-ray logs -f {run.id}{option}`"
        ) from None


def _again(address: str | None) -> str:
    """The option of the commands to come, where there was one."""
    return f" --address {address}" if address else ""


def _json(status: RunStatus) -> str:
    return json.dumps(asdict(status), default=str)


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InputError(f"{option} {text}: write NAME=VALUE")
        pairs[name] = value
    return pairs
