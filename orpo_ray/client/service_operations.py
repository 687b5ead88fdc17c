"""The same things, done through a service (`orpo-ray serve`): plain requests to its REST API."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orpo_ray.client.errors import (
    ClusterError,
    ClusterUnreachableError,
    NotAuthorisedError,
    RefusedError,
    RunNotFinishedError,
    UnknownRunError,
)
from orpo_ray.client.files import What
from orpo_ray.client.operations import POLL_S, Configuration, Here, Submission, checked_shape
from orpo_ray.client.result import RunResult, run_result
from orpo_ray.client.status import RunState, RunStatus, run_time
from orpo_ray.client.steps import Answer, Emit, Request, Sleep, Steps, Work
from orpo_ray.errors import ConfigError, InputError, WaitTimeout
from orpo_ray.report.progress import remark

# What a run's own record calls its states, beside those that a job has.
_STATES = {"interrupted": RunState.STOPPED, "killed": RunState.FAILED}
_PAGE = 200


def submit(configuration: Configuration, how: Submission, here: Here | None) -> Steps[str]:
    """As `operations.submit`; a relative storage.path is the service's own."""
    if how.placement is not None or how.working_dir is not None or how.env:
        raise InputError(
            "driver, working_dir and env are not taken by a service, which decides where drivers work; leave them out, or "
            "give the dashboard's address"
        )
    config = yield Work(lambda: checked_shape(configuration))
    data = config.model_dump(mode="json", by_alias=True)
    if not Path(config.storage.path).is_absolute():
        del data["storage"]["path"]
    body = {"config": data, "fresh": how.fresh}
    return str((yield from _json(Request("POST", "/v1/runs", json=body)))["name"])


def runs() -> Steps[list[str]]:
    """Names of all runs on the service's storage, oldest first."""
    names: list[str] = []
    after: str | None = None
    while True:
        page = yield from _json(Request("GET", f"/v1/runs?limit={_PAGE}" + (f"&after={quote(after)}" if after else "")))
        names += [run["name"] for run in page["items"]]
        after = page["next"]
        if after is None:
            return names[::-1]


def find(identity: str) -> Steps[str]:
    """The name of a run that is given by its name."""
    yield from _detail(identity)
    return identity


def status(identity: str) -> Steps[RunStatus]:
    """As `operations.status`."""
    return _status((yield from _detail(identity)))


def wait(identity: str, timeout: float | None) -> Steps[RunStatus]:
    """As `operations.wait`."""
    began = time.monotonic()
    while not (now := (yield from status(identity))).state.over:
        if timeout is not None and time.monotonic() - began >= timeout:
            where = f" in {now.phase}" if now.phase else ""
            raise WaitTimeout(f"{identity} was not over within {timeout:g} s: it is {now.state}{where}, and goes on")
        yield Sleep(POLL_S)
    now.check()
    return now


def follow(identity: str, *, on: bool) -> Steps[None]:
    """Emit what the run's events deserve as lines and, if `on`, those to come until it is over."""
    after = 0
    while True:
        # In this order: what is written before the end is read after it.
        over = (yield from status(identity)).state.over
        page = yield from _json(Request("GET", _path(identity, f"/events?after={after}&limit=1000")))
        for event in page["items"]:
            line = f"{event['phase']:<8} …" if event["kind"] == "phase.start" else remark(event["kind"], event)
            if line is not None:
                yield Emit(line + "\n")
        after = page["next"]
        if page["more"]:
            continue
        if over or not on:
            return
        yield Sleep(POLL_S)


def stop(identity: str) -> Steps[RunStatus]:
    """As `operations.stop`."""
    return _status((yield from _json(Request("POST", _path(identity, "/stop")))))


def lines(identity: str, what: What, limit: int | None, here: Here | None) -> Steps[list[dict[str, Any]]]:
    """As `operations.lines`, page by page. Traces come without their token ids."""
    if what is What.REPORT:
        report = (yield from _detail(identity))["report"]
        return [] if report is None else [report]
    if what in (What.METRICS, What.EVENTS):
        name = "metrics" if what is What.METRICS else "events"
        return (yield from _pages(identity, f"/{name}?limit=1000", limit))
    source = "teacher" if what is What.TEACHER_TRACES else "initial"
    rows = yield from _pages(identity, f"/traces?source={source}&limit={_PAGE}", limit)
    return [_trace(row) for row in rows]


def result(identity: str, here: Here | None) -> Steps[RunResult]:
    """As `operations.result`."""
    now = yield from status(identity)
    now.check()
    if now.state is not RunState.DONE:
        raise RunNotFinishedError(f"{identity} is {now.state}" + (f" in {now.phase}" if now.phase else ""))
    (report,) = yield from lines(identity, What.REPORT, None, here)
    return run_result(report)


def cluster_version() -> Steps[str]:
    """The version of Ray on the service's cluster."""
    answer: Answer = yield Request("GET", "/readyz")
    return str(json.loads(answer.text)["cluster"]).removeprefix("Ray ")


def is_service() -> Steps[bool]:
    """Whether a service of this package answers, and not a Ray dashboard."""
    answer: Answer = yield Request("GET", "/healthz")
    try:
        return answer.status == 200 and json.loads(answer.text)["service"] == "orpo_ray"
    except (ValueError, KeyError, TypeError):
        return False


def _pages(identity: str, path: str, limit: int | None) -> Steps[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None and (limit is None or len(found) < limit):
        page = yield from _json(Request("GET", _path(identity, f"{path}&after={after}")))
        found += page["items"]
        # Files that may grow give a place to look on from; `more` says whether there is something yet.
        after = page["next"] if page.get("more", True) else None
    return found[:limit]


def _trace(row: Mapping[str, Any]) -> dict[str, Any]:
    """As the store has it, from what a person is shown."""
    names = (
        "prompt_id",
        "sample",
        "text",
        "verdict",
        "truncated",
        "kept",
        "near_duplicate",
        "model",
        "version",
        "seed",
    )
    source = "teacher" if row["source"] == "teacher" else "student"
    return {name: row[name] for name in (*names, "temperature")} | {"token_ids": None, "source": source}


def _status(detail: Mapping[str, Any]) -> RunStatus:
    report = detail["report"] or {}
    worked = [phase["name"] for phase in report.get("phases", []) if phase["state"] != "waiting"]
    state = _STATES.get(detail["state"]) or RunState(detail["state"])
    message = detail["error"] or ("it was killed" if detail["state"] == "killed" else "")
    return RunStatus(
        id=detail["name"],
        name=detail["name"],
        storage=str(Path(report["directory"]).parent) if report else None,
        state=state,
        phase=worked[-1] if worked else None,
        message=message if state in (RunState.FAILED, RunState.REFUSED) else "",
        exit_code=None,
        started=run_time(report.get("started")),
        ended=run_time(report.get("finished")),
        node=None,
    )


def _detail(identity: str) -> Steps[dict[str, Any]]:
    found: dict[str, Any] = yield from _json(Request("GET", _path(identity)))
    return found


def _path(identity: str, rest: str = "") -> str:
    return f"/v1/runs/{quote(identity, safe='')}{rest}"


def _json(request: Request) -> Steps[Any]:
    answer: Answer = yield request
    try:
        data = json.loads(answer.text)
    except ValueError:
        raise ClusterUnreachableError("what answers is no service of orpo_ray (it sends no JSON)") from None
    if answer.status < 400:
        return data
    detail = data.get("detail") if isinstance(data, dict) else None
    said = detail if isinstance(detail, str) else f"the service answered {answer.status}"
    if answer.status == 401:
        raise NotAuthorisedError("not authorised: the service asks for its token, as `orpo_ray.Client(url, token)`")
    if answer.status == 422 and data.get("problems"):
        raise ConfigError(data["problems"])
    raise {404: UnknownRunError, 409: RefusedError, 422: RefusedError}.get(answer.status, ClusterError)(said)
