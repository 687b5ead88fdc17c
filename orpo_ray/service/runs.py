"""The runs that a service tells of: their files on the storage, their jobs on the cluster.

All that blocks is done in threads. What several readers ask within a second is worked out once.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from orpo_ray.client import Placement, RefusedError, RunState, UnknownRunError, jobs, operations
from orpo_ray.client.address import dashboard_address, find_token
from orpo_ray.client.steps import Awaiting
from orpo_ray.config import RunConfig
from orpo_ray.config.layout import RunLayout, is_run_name
from orpo_ray.controller.lock import lock_holder
from orpo_ray.errors import InputError, OrpoRayError
from orpo_ray.report.browse import PairRow, RunTraces, TraceRow
from orpo_ray.report.filters import Filters
from orpo_ray.report.progress import progressed
from orpo_ray.report.show import read_evaluations, run_report
from orpo_ray.service.activity import activity
from orpo_ray.service.lines import Page, last_lines, read_page
from orpo_ray.service.schemas import Activity, GroupActivity, Progress, Rows, RunDetail, RunSummary, Submitted

Log = Literal["events", "metrics"]
Kind = Literal["traces", "pairs"]

FRESH_S = 1.0
"""For so long an answer is given again, at least."""
FRESHEST_S, _SHARE = 5.0, 0.02
"""At most: one that took long to work out is given again for longer, so that working it out takes that share of the time."""
POLL_S = 0.5
SCANNED = 20_000
"""Most rows that one request puts its filters to."""
_BROWSED = 4
_FRESH = 64
"""So many answers are kept before old ones are let go: a page of rows may be of some hundred KiB."""

T = TypeVar("T")


@dataclass(frozen=True)
class Live:
    """A run, and the lines that somebody has not seen yet.

    Attributes:
        state: `run` and `activity` of `schemas.Live`, as JSON.
    """

    state: bytes
    events: Page
    metrics: Page

    @property
    def more(self) -> bool:
        """Whether there are more lines already."""
        return self.events.more or self.metrics.more

    def json(self, again_s: float) -> bytes:
        """As `schemas.Live`."""
        parts = self.state, self.events.json(), self.metrics.json(), again_s
        return b'{%s,"events":%s,"metrics":%s,"again_s":%g}' % parts


class Jobs(Protocol):
    """The cluster's jobs, as far as a service needs them."""

    async def submit(self, config: RunConfig, fresh: bool) -> str:
        """Start a run as a job; its id.

        Raises:
            RefusedError: a job works on the run already.
        """

    async def newest_of(self, name: str, storage: str) -> tuple[str, RunState] | None:
        """Id and state of the newest job on a run; None where the cluster knows none."""

    async def message(self, job: str) -> str:
        """Why it failed, or was refused; empty where it did not."""

    async def stop(self, job: str) -> None:
        """Ask it to stop, and wait until it has."""

    async def ray_version(self) -> str:
        """The cluster's version of Ray.

        Raises:
            OrpoRayError: it does not answer.
        """


class ClusterJobs:
    """Jobs through Ray's Jobs API, as the Python client submits them.

    Args:
        address, token: as `orpo_ray.Client` takes them.
        drivers: where drivers of runs work; on the head where None.
    """

    def __init__(self, address: str | None, token: str | None, drivers: Placement | None = None) -> None:
        self._drivers = drivers
        url = dashboard_address(address)
        found = find_token(token, url)
        self._http = Awaiting(url, {"Authorization": f"Bearer {found}"} if found else {})

    async def submit(self, config: RunConfig, fresh: bool) -> str:
        return await self._http.finish(operations.submit(config, operations.Submission(fresh, self._drivers), None))

    async def newest_of(self, name: str, storage: str) -> tuple[str, RunState] | None:
        return await self._http.finish(operations.newest_of(name, storage))

    async def message(self, job: str) -> str:
        return (await self._http.finish(operations.status(job))).message

    async def stop(self, job: str) -> None:
        await self._http.finish(operations.stop(job))

    async def ray_version(self) -> str:
        return await self._http.finish(jobs.ray_version())


class Runs:
    """Every run below one storage directory.

    Args:
        storage: absolute; the `storage.path` of all its runs.
    """

    def __init__(self, storage: Path, cluster: Jobs, clock: Callable[[], float] = time.monotonic) -> None:
        self.storage, self._jobs, self._clock = storage, cluster, clock
        self._fresh: dict[object, _Answer] = {}
        self._browsed: dict[str, tuple[int, RunTraces]] = {}
        self._opening = threading.Lock()

    async def submit(self, config: RunConfig, fresh: bool) -> Submitted:
        """Start a run, or go on with it.

        Raises:
            InputError: it is to lie elsewhere than below the service's storage, or as for `Client.submit`.
            RefusedError: a job works on it already.
        """
        if Path(config.storage.path) != self.storage:
            raise InputError(
                f"storage.path: is {config.storage.path}, and this service keeps its runs in {self.storage}; leave it out, "
                "or give the same"
            )
        job = await self._jobs.submit(config, fresh)
        self._fresh.clear()
        return Submitted(name=config.name, job=job)

    async def summaries(self) -> list[RunSummary]:
        """All runs, the newest first."""
        return await self._once("summaries", lambda: asyncio.to_thread(self._summaries))

    async def detail(self, name: str) -> RunDetail:
        """A run in full.

        Raises:
            UnknownRunError: there is none.
        """
        return await self._once(("detail", name), lambda: self._detail(name))

    async def stop(self, name: str) -> None:
        """Stop the job that works on a run; nothing happens to a run that is over.

        Raises:
            UnknownRunError: there is no such run.
            RefusedError: what works on it is no job of this cluster.
        """
        job = await self._jobs.newest_of(name, str(self.storage))
        if job is not None and not job[1].over:
            await self._jobs.stop(job[0])
            self._fresh.clear()
            return
        if await asyncio.to_thread(lock_holder, self._layout(name).lock) is not None:
            raise RefusedError(
                f"{name}: is worked on by a process that is no job of this cluster; stop it where it runs"
            )

    async def page(self, name: str, log: Log, after: int, limit: int) -> Page:
        """Lines of a run's events or metrics.

        Raises:
            UnknownRunError: there is no such run.
        """
        file = getattr(self._layout(name), log)
        # Who reads along asks for the same page as everybody else who does.
        return await self._once((log, name, after, limit), lambda: asyncio.to_thread(read_page, file, after, limit))

    async def follow(self, name: str, after: int) -> AsyncIterator[Page]:
        """A run's events, page by page, until nobody works on the run; a page without lines after each look in vain.

        Raises:
            UnknownRunError: there is no such run.
        """
        layout = self._layout(name)

        def look(after: int) -> tuple[bool, Page]:
            # In this order: what is written before the end is read after it.
            over = lock_holder(layout.lock) is None
            return over, read_page(layout.events, after, 500)

        while True:
            # All streams of a run look together: a thread for each of them, twice a second, would be all that is done.
            over, page = await self._once(("look", name, after), partial(asyncio.to_thread, look, after))
            after = page.next
            yield page
            if over and not page.more:
                return
            if not page.more:
                await asyncio.sleep(POLL_S)

    async def live(self, name: str, events: int | None, metrics: int) -> Live:
        """All that somebody who looks along has not seen yet.

        Args:
            events, metrics: where the lines begin that were not seen; of events, None for none of them.

        Raises:
            UnknownRunError: there is no such run.
        """
        state = await self._once(("state", name), lambda: self._state(name))
        nothing = Page([], [], 0, more=False)
        try:
            return Live(
                state,
                nothing if events is None else await self.page(name, "events", events, 500),
                await self.page(name, "metrics", metrics, 1000),
            )
        except UnknownRunError:  # the cluster has taken it, and it has no files yet
            return Live(state, nothing, nothing)

    async def evaluations(self, name: str) -> list[dict[str, Any]]:
        """Evaluations by split and epoch, with samples, without which rows were right.

        Raises:
            UnknownRunError: there is no such run.
        """
        directory = self._layout(name).evaluations
        found = await asyncio.to_thread(read_evaluations, directory)
        return [{key: value for key, value in one.items() if key != "right"} for one in found]

    async def activity(self, name: str) -> list[GroupActivity]:
        """What the groups of workers do.

        Raises:
            UnknownRunError: there is no such run.
        """
        logs = self._layout(name).run / "logs"
        return await self._once(("activity", name), lambda: asyncio.to_thread(activity, logs))

    async def rows(self, name: str, kind: Kind, filters: Filters, after: int, limit: int) -> Rows:
        """Traces or pairs that match, from the row `after` on.

        Raises:
            UnknownRunError: there is no such run.
            InputError: its traces or its tokenizer are gone.
        """
        layout = self._layout(name)
        work = partial(asyncio.to_thread, self._rows, layout, kind, filters, after, limit)
        return await self._once((kind, name, filters, after, limit), work)

    async def readiness(self) -> tuple[bool, str, str]:
        """Whether storage and cluster can be worked with, and a word on each."""
        try:
            await asyncio.to_thread(lambda: next(iter(self.storage.iterdir()), None))
            storage, there = "ok", True
        except OSError as error:
            storage, there = f"{self.storage}: {error.strerror}", False
        try:
            cluster, reached = f"Ray {await self._jobs.ray_version()}", True
        except OrpoRayError as error:
            cluster, reached = str(error), False
        return there and reached, storage, cluster

    def _layout(self, name: str) -> RunLayout:
        layout = RunLayout(self.storage, name)
        # Of the configuration's rule for names, so that nobody reads beside the storage: `..` is a part of a path too.
        if not is_run_name(name) or not layout.state.is_file():
            raise UnknownRunError(f"{name}: no run of this name in {self.storage}")
        return layout

    def _report(self, name: str) -> dict[str, Any]:
        layout = self._layout(name)
        return run_report(layout, alive=lock_holder(layout.lock) is not None)

    def _summaries(self) -> list[RunSummary]:
        found = []
        for file in self.storage.glob("*/run.json"):
            try:
                found.append(_summary(self._report(file.parent.name)))
            except (InputError, UnknownRunError):  # removed, or broken by hand: the others are shown
                continue
        return sorted(found, key=lambda run: (run.started or "", run.name), reverse=True)

    async def _detail(self, name: str) -> RunDetail:
        job = await self._job(name)
        try:
            report = await asyncio.to_thread(self._report, name)
        except UnknownRunError:
            if job is None:
                raise
            error = await self._jobs.message(job[0]) if job[1].over else None
            return RunDetail(name=name, state=job[1], job=job[0], error=error, progress=None, report=None)
        events = await asyncio.to_thread(last_lines, self._layout(name).events)
        progress = progress_in(events) if report["state"] == "running" else None
        return RunDetail(
            name=name,
            state=report["state"],
            job=job[0] if job else None,
            error=report["error"],
            progress=progress,
            report=report,
        )

    async def _state(self, name: str) -> bytes:
        """The run in full and what its groups do, as the fields of a JSON object: many are given the same."""
        detail = await self._detail(name)
        groups = await asyncio.to_thread(activity, RunLayout(self.storage, name).run / "logs")
        doing = Activity(items=groups).model_dump_json()
        return f'"run":{detail.model_dump_json()},"activity":{doing}'.encode()

    async def _job(self, name: str) -> tuple[str, RunState] | None:
        """As Jobs.newest_of; a cluster that does not answer knows none, and the files are told of all the same."""
        try:
            return await self._jobs.newest_of(name, str(self.storage))
        except OrpoRayError:
            return None

    def _rows(self, layout: RunLayout, kind: Kind, filters: Filters, after: int, limit: int) -> Rows:
        run = self._opened(layout)
        rows: Iterator[TraceRow | PairRow] = iter(run.traces() if kind == "traces" else run.pairs())
        items: list[dict[str, Any]] = []
        looked_at = 0
        for row in islice(rows, after, None):
            if len(items) == limit or looked_at == SCANNED:
                return Rows(items=items, next=after + looked_at, looked_at=looked_at)
            looked_at += 1
            if filters.match(row):
                items.append(asdict(row))
        return Rows(items=items, next=None, looked_at=looked_at)

    def _opened(self, layout: RunLayout) -> RunTraces:
        """With its tokenizer and task, which take seconds to load, kept for the next page; one thread loads at a time."""
        with self._opening:
            stamp = layout.state.stat().st_mtime_ns
            kept = self._browsed.pop(layout.name, None)
            opened = kept[1] if kept is not None and kept[0] == stamp else RunTraces.open(layout)
            self._browsed[layout.name] = (stamp, opened)
            while len(self._browsed) > _BROWSED:
                del self._browsed[next(iter(self._browsed))]
            return opened

    async def _once(self, what: object, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, asked at most once a second by all readers together."""
        now = self._clock()
        known = self._fresh.get(what)
        if known is None or now > known.until:
            if len(self._fresh) > _FRESH:  # pages of rows are large
                self._fresh = {one: answer for one, answer in self._fresh.items() if now <= answer.until}
            known = self._fresh[what] = _Answer(asyncio.ensure_future(work()), now, self._clock)
        try:
            given: T = await asyncio.shield(known.future)
            return given
        except BaseException:
            if known.future.done():
                self._fresh.pop(what, None)
            raise


class _Answer:
    """What is being worked out since `began`, or was.

    Attributes:
        until: for so long it is given again.
    """

    def __init__(self, future: asyncio.Future[Any], began: float, clock: Callable[[], float]) -> None:
        self.future, self.until = future, began + FRESHEST_S

        def done(_: asyncio.Future[Any]) -> None:
            self.until = began + min(max(FRESH_S, (clock() - began) / _SHARE), FRESHEST_S)

        future.add_done_callback(done)


def _summary(report: Mapping[str, Any]) -> RunSummary:
    tests = [one for one in report["evaluations"] if one["split"] == "test"]
    worked = [phase["name"] for phase in report["phases"] if phase["state"] != "waiting"]
    before = next((one for one in tests if one["epoch"] == 0), None)
    return RunSummary(
        name=report["name"],
        state=report["state"],
        phase=worked[-1] if worked else None,
        started=report["started"],
        finished=report["finished"],
        error=report["error"],
        before=before,
        now=tests[-1] if tests else None,
        teacher=report["teacher"],
    )


def progress_in(events: list[dict[str, Any]]) -> Progress | None:
    """How far the phase at work is, and when it will be through at the pace that the events show."""
    seen = [(event, at) for event in events if (at := progressed(event["kind"], event)) is not None]
    started = [event["phase"] for event in events if event["kind"] == "phase.start"]
    if not seen or (started and started[-1] != seen[-1][1].phase):
        return None
    last, at = seen[-1]
    same = [(event, old) for event, old in seen if (old.phase, old.total) == (at.phase, at.total)]
    first, then = same[0]
    seconds = (datetime.fromisoformat(last["time"]) - datetime.fromisoformat(first["time"])).total_seconds()
    left = (at.total - at.done) * seconds / (at.done - then.done) if at.done > then.done else None
    return Progress(phase=at.phase, done=at.done, total=at.total, details=at.details, seconds_left=left)
