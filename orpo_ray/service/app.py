"""The routes of the control plane, and who is let in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

from orpo_ray import __version__
from orpo_ray.client import (
    ClusterError,
    ClusterUnreachableError,
    NotAuthorisedError,
    RefusedError,
    UnknownRunError,
)
from orpo_ray.config import RunConfig, parse_config
from orpo_ray.config.yaml_text import read_yaml
from orpo_ray.errors import ConfigError, InputError, OrpoRayError
from orpo_ray.report.filters import Filters, Range
from orpo_ray.service.guard import BodyLimit, Headers
from orpo_ray.service.lines import Page
from orpo_ray.service.pace import Pace
from orpo_ray.service.runs import Runs
from orpo_ray.service.schemas import (
    Activity,
    Evaluations,
    Health,
    Lines,
    Live,
    Problem,
    Readiness,
    Rows,
    RunDetail,
    RunPage,
    Submission,
    Submitted,
)
from orpo_ray.teacher.key_gate import KeyGate

MOST_BYTES = 1 << 20
"""Of a request's body: a configuration is some kilobytes."""
MOST_STREAMS = 64
"""Event streams at a time, each a connection that stays."""
PAGE = Path(__file__).parent / "page"
_HEARTBEAT = 30  # looks at a file without news, about 15 s
_REFUSAL = {"detail": "not authorised: this service asks for a token, as `Authorization: Bearer …`", "problems": []}

After = Annotated[int, Query(ge=0, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
FewRows = Annotated[int, Query(ge=1, le=200)]


def create_app(runs: Runs, key_sha256: str | None) -> FastAPI:
    """The application.

    Args:
        key_sha256: hex digest of the token that every request but the health checks and the page's own files must bring;
            None lets anybody in.
    """
    app = FastAPI(
        title="orpo_ray",
        version=__version__,
        description="Runs of orpo_ray: submit, watch, stop.",
        docs_url=None,  # it would load its scripts from another host
        redoc_url=None,
        responses={401: {"model": Problem}, 404: {"model": Problem}, 422: {"model": Problem}},
    )
    # The last one added sees a request first.
    app.add_middleware(BodyLimit, limit=MOST_BYTES)
    if key_sha256 is not None:
        app.add_middleware(KeyGate, key_sha256=key_sha256, refusal=_REFUSAL, open_to_all=_open_to_all().__contains__)
    app.add_middleware(Headers)
    _add_errors(app)
    _add_health(app, runs)
    _add_runs(app, runs)
    _add_rows(app, runs)
    if PAGE.is_dir():
        _add_page(app)
    return app


def _open_to_all() -> frozenset[str]:
    """The health checks, and the page's own files: it holds nothing of the runs, and asks for the token itself."""
    files = [f"/{file.relative_to(PAGE).as_posix()}" for file in PAGE.rglob("*") if file.is_file()]
    return frozenset(["/healthz", "/readyz", "/", "/favicon.ico", *files])


def _add_page(app: FastAPI) -> None:
    @app.get("/favicon.ico", include_in_schema=False)
    async def favicon() -> FileResponse:
        """Browsers ask for it beside whatever names no icon of its own, as a health check."""
        return FileResponse(PAGE / "icon.svg")

    app.mount("/", StaticFiles(directory=PAGE, html=True))


def _add_errors(app: FastAPI) -> None:
    statuses: list[tuple[type[OrpoRayError], int]] = [
        (UnknownRunError, 404),
        (RefusedError, 409),
        (InputError, 422),
        (ClusterUnreachableError, 502),
        (NotAuthorisedError, 502),
        (ClusterError, 502),
        (OrpoRayError, 500),
    ]

    @app.exception_handler(OrpoRayError)
    def said(_: Request, error: OrpoRayError) -> JSONResponse:
        status = next(code for kind, code in statuses if isinstance(error, kind))
        problems = error.problems if isinstance(error, ConfigError) else []
        return JSONResponse({"detail": str(error), "problems": problems}, status_code=status)


def _add_health(app: FastAPI, runs: Runs) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> Health:
        """Whether the service answers."""
        return Health(status="ok", version=__version__)

    @app.get("/readyz", tags=["health"], responses={503: {"model": Readiness}})
    async def readyz() -> JSONResponse:
        """Whether its storage can be read and its cluster takes jobs."""
        ready, storage, cluster = await runs.readiness()
        answer = Readiness(ready=ready, storage=storage, cluster=cluster)
        return JSONResponse(answer.model_dump(), status_code=200 if ready else 503)


def _add_runs(app: FastAPI, runs: Runs) -> None:
    streams, pace = asyncio.Semaphore(MOST_STREAMS), Pace()

    @app.post("/v1/runs", status_code=202, tags=["runs"], responses={409: {"model": Problem}})
    async def submit(submission: Submission) -> Submitted:
        """Start a run as a job of the cluster. The same name goes on where it stopped."""
        return await runs.submit(_config(submission, runs.storage), submission.fresh)

    @app.get("/v1/runs", tags=["runs"])
    async def list_runs(
        after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> RunPage:
        """The runs on the storage, the newest first."""
        every = await runs.summaries()
        names = [run.name for run in every]
        if after is not None and after not in names:
            raise InputError(f"after: {after} is none of the runs that are there; begin with the first page")
        first = 0 if after is None else names.index(after) + 1
        items = every[first : first + limit]
        following = items[-1].name if first + limit < len(every) else None
        return RunPage(items=items, next=following, again_s=pace.again_s())

    @app.get("/v1/runs/{name}", tags=["runs"])
    async def run(name: str) -> RunDetail:
        """A run in full: phases, progress, accuracy, pairs, staleness, and where things lie."""
        return await runs.detail(name)

    @app.get("/v1/runs/{name}/live", tags=["runs"], response_model=Live)
    async def live(
        name: str,
        events: Annotated[
            int | None, Query(ge=0, description="`events.next` of the look before; left out for no events.")
        ] = None,
        metrics: Annotated[int, Query(ge=0, description="`metrics.next` of the look before.")] = 0,
    ) -> Response:
        """All of a run that a page shows, in one answer: state, activity, and the events and metrics since the look before."""
        found = await runs.live(name, events, metrics)
        return Response(found.json(0.0 if found.more else pace.again_s()), media_type="application/json")

    @app.post("/v1/runs/{name}/stop", tags=["runs"], responses={409: {"model": Problem}})
    async def stop(name: str) -> RunDetail:
        """Stop a run, cleanly: what is finished is kept. Nothing happens to one that is over."""
        await runs.stop(name)
        return await runs.detail(name)

    @app.get("/v1/runs/{name}/events", tags=["runs"], response_model=Lines)
    async def events(
        name: str,
        after: After = 0,
        limit: Limit = 200,
        accept: Annotated[str, Header()] = "",
        last_event_id: Annotated[str, Header()] = "",
    ) -> Any:
        """What happened: a page of JSON, or with `Accept: text/event-stream` all of it and what is to come."""
        if "text/event-stream" not in accept:
            return _as_json(await runs.page(name, "events", after, limit))
        await runs.page(name, "events", 0, 1)  # a run that there is not is refused before the stream begins
        if streams.locked():
            return JSONResponse(
                {"detail": f"{MOST_STREAMS} event streams are open already; ask again later", "problems": []}, 503
            )
        # Nothing is waited for between the look and this: of many that come at once none gets past the bound.
        await streams.acquire()
        begin = int(last_event_id) if last_event_id.isdigit() else after
        return _EventStream(_event_stream(runs, name, begin), streams)

    @app.get("/v1/runs/{name}/metrics", tags=["runs"], response_model=Lines)
    async def metrics(name: str, after: After = 0, limit: Limit = 1000) -> Response:
        """A line for each optimizer step."""
        return _as_json(await runs.page(name, "metrics", after, limit))

    @app.get("/v1/runs/{name}/evaluations", tags=["runs"])
    async def evaluations(name: str) -> Evaluations:
        """Accuracy by split and epoch, with sample answers."""
        return Evaluations(items=await runs.evaluations(name))

    @app.get("/v1/runs/{name}/activity", tags=["runs"])
    async def activity(name: str) -> Activity:
        """Tokens a second and utilisation of teacher, samplers, trainer and evaluator."""
        return Activity(items=await runs.activity(name))


class _EventStream(StreamingResponse):
    """Server-sent events; gives its place back when the reader goes or the stream ends."""

    def __init__(self, events: AsyncIterator[bytes], places: asyncio.Semaphore) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._places = places

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()


def _as_json(page: Page) -> Response:
    """The lines as they stand in the file: nothing here needs them parsed."""
    return Response(page.json(), media_type="application/json")


async def _event_stream(runs: Runs, name: str, after: int) -> AsyncIterator[bytes]:
    """Server-sent events; the last one is `end`, behind which nobody works on the run."""
    quiet = 0
    async for page in runs.follow(name, after):
        if page.lines:
            quiet = 0
            # A page is one message of Serve's: each goes from replica to proxy through Ray.
            events = zip(page.places, page.lines, strict=True)
            yield b"".join(b"id: %d\ndata: %s\n\n" % event for event in events)
        elif (quiet := quiet + 1) >= _HEARTBEAT:
            quiet = 0
            yield b": still here\n\n"
    yield b"event: end\ndata: {}\n\n"


def _filters(
    source: Annotated[str | None, Query(description="teacher, initial, live; of pairs also none.")] = None,
    verdict: Annotated[str | None, Query(description="right, wrong or unparsed.")] = None,
    truncated: bool | None = None,
    kept: bool | None = None,
    version: Annotated[str | None, Query(description="A number or a range: 3, 3..8, 3.. or ..8.")] = None,
    epoch: Annotated[str | None, Query(description="A number or a range.")] = None,
    prompt_id: str | None = None,
    search: Annotated[str | None, Query(max_length=200, description="Any part of prompt or trace.")] = None,
    overlap: Annotated[str | None, Query(description="A number or a range.")] = None,
    tokens: Annotated[str | None, Query(description="A number or a range.")] = None,
) -> Filters:
    ranges = {"version": version, "epoch": epoch, "overlap": overlap, "tokens": tokens}
    return Filters(
        source=source, verdict=verdict, truncated=truncated, kept=kept, prompt_id=prompt_id, search=search or None,
        **{name: Range.parse(name, text) for name, text in ranges.items() if text},
    )  # fmt: skip


def _add_rows(app: FastAPI, runs: Runs) -> None:
    # Reading through traces is the one thing that takes a while: two at a time, and the rest of the service goes on.
    places = asyncio.Semaphore(2)

    @app.get("/v1/runs/{name}/traces", tags=["rows"])
    async def traces(
        name: str, filters: Annotated[Filters, Depends(_filters)], after: After = 0, limit: FewRows = 50
    ) -> Rows:
        """Traces of teacher, initial and live student, with their verdicts."""
        async with places:
            return await runs.rows(name, "traces", filters, after, limit)

    @app.get("/v1/runs/{name}/pairs", tags=["rows"])
    async def pairs(
        name: str, filters: Annotated[Filters, Depends(_filters)], after: After = 0, limit: FewRows = 50
    ) -> Rows:
        """Preference pairs in the order of the stream: chosen beside rejected."""
        async with places:
            return await runs.rows(name, "pairs", filters, after, limit)


def _config(submission: Submission, storage: Path) -> RunConfig:
    """The configuration of a submission, checked.

    Raises:
        ConfigError: with every mistake found.
        InputError: neither or both forms are given, or the text is no YAML mapping.
    """
    if (submission.config is None) == (submission.yaml is None):
        raise InputError("give the configuration as `config` (sections) or as `yaml` (text), one of the two")
    data: Any = submission.config
    if submission.yaml is not None:
        try:
            data = read_yaml(submission.yaml)
        except yaml.YAMLError as error:
            raise InputError(f"yaml: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError("yaml: holds no mapping; a run's configuration has sections as `task:` and `student:`")
    section = data.get("storage", {})
    if isinstance(section, dict):
        data = data | {"storage": {"path": str(storage)} | section}
    return parse_config(data)
