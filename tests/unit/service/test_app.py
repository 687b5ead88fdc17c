"""Every route, through the application itself: what it gives, what it refuses, and to whom."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from orpo_ray.client import RunState
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller.lock import RunLock
from orpo_ray.service.app import MOST_BYTES, create_app
from orpo_ray.service.runs import Runs
from orpo_ray.teacher.key_gate import digest
from tests.unit.report.finished import write_finished_run, write_state
from tests.unit.report.traced import config, write_traced_run
from tests.unit.service.fake_jobs import FakeJobs

TOKEN = "a-token-of-some-length"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def api(storage: Path, jobs: FakeJobs) -> Iterator[TestClient]:
    app = create_app(Runs(storage, jobs), digest(TOKEN))
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def asked() -> dict[str, Any]:
    data = config().model_dump(mode="json", by_alias=True)
    del data["storage"]
    return data


def events(layout: RunLayout, *lines: dict[str, Any], cut: str = "") -> None:
    with layout.events.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.write(cut)


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer another"}, {"Authorization": TOKEN}])
def test_nobody_is_let_in_without_the_token(api: TestClient, storage: Path, header: dict[str, str]) -> None:
    write_finished_run(storage)
    api.headers.pop("authorization")
    for path in ("/v1/runs", "/v1/runs/toy", "/v1/runs/toy/events", "/v1/nothing", "/openapi.json"):
        answer = api.get(path, headers=header)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "toy" not in answer.text
    assert api.post("/v1/runs", headers=header, json={"config": asked()}).status_code == 401
    assert api.get("/healthz", headers=header).json()["status"] == "ok"


def test_a_submitted_run_is_known_at_once_and_one_name_is_one_run(
    api: TestClient, jobs: FakeJobs, storage: Path
) -> None:
    answer = api.post("/v1/runs", json={"config": asked(), "fresh": True})
    assert (answer.status_code, answer.json()) == (202, {"name": "toy", "job": "job-toy"})
    ((sent, fresh),) = jobs.submitted
    assert (sent.storage.path, fresh) == (str(storage), True)
    found = api.get("/v1/runs/toy").json()
    assert (found["state"], found["job"], found["report"]) == ("pending", "job-toy", None)
    again = api.post("/v1/runs", json={"yaml": yaml.safe_dump(asked())})
    assert again.status_code == 409
    assert "job-toy works on this run already" in again.json()["detail"]


def test_every_mistake_of_a_configuration_is_named(api: TestClient, jobs: FakeJobs) -> None:
    wrong = asked() | {"policy": {"phi": 2}, "tusk": {}}
    answer = api.post("/v1/runs", json={"config": wrong})
    assert answer.status_code == 422
    assert [problem.split(":")[0] for problem in answer.json()["problems"]] == ["policy.phi", "tusk"]
    assert jobs.submitted == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "one of the two"),
        ({"config": {}, "yaml": ""}, "one of the two"),
        ({"yaml": "a: [1"}, "not valid YAML"),
        ({"yaml": "- 1"}, "holds no mapping"),
        ({"yaml": "!!python/object/apply:os.system [id]"}, "not valid YAML"),
        ({"config": {"name": "toy"}}, "task"),
    ],
)
def test_what_is_no_configuration_is_refused(api: TestClient, body: dict[str, Any], said: str) -> None:
    answer = api.post("/v1/runs", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_runs_lie_where_the_service_keeps_them(api: TestClient, storage: Path) -> None:
    answer = api.post("/v1/runs", json={"config": asked() | {"storage": {"path": "/elsewhere"}}})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(
        f"storage.path: is /elsewhere, and this service keeps its runs in {storage}"
    )


def test_a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not(api: TestClient, jobs: FakeJobs) -> None:
    large = json.dumps({"yaml": "#" * MOST_BYTES}).encode()
    assert api.post("/v1/runs", content=large).status_code == 413
    assert api.post("/v1/runs", content=(large[at : at + 4096] for at in range(0, len(large), 4096))).status_code == 413
    assert jobs.submitted == []


def test_runs_are_listed_page_by_page_the_newest_first(api: TestClient, storage: Path) -> None:
    for day, name in enumerate(("a", "b", "c"), start=10):
        write_state(write_finished_run(storage, name), started=f"2024-01-{day}T00:00:00.000Z")
    (storage / "traces").mkdir()
    first = api.get("/v1/runs", params={"limit": 2}).json()
    assert [run["name"] for run in first["items"]] == ["c", "b"]
    second = api.get("/v1/runs", params={"limit": 2, "after": first["next"]}).json()
    assert ([run["name"] for run in second["items"]], second["next"]) == (["a"], None)
    run = first["items"][0]
    assert (run["state"], run["phase"]) == ("done", "EXPORT")
    assert (run["before"]["correct"], run["now"]["correct"], run["teacher"]["correct"]) == (142, 237, 463)
    assert run["now"]["low"] < run["now"]["rate"] == 237 / 500 < run["now"]["high"]
    assert api.get("/v1/runs", params={"after": "z"}).status_code == 422
    assert api.get("/v1/runs", params={"limit": 0}).status_code == 422


def test_no_runs_are_an_empty_page(api: TestClient) -> None:
    assert api.get("/v1/runs").json() == {"items": [], "next": None, "again_s": 2.0}


@pytest.mark.parametrize("path", ["nothing", "%2e%2e", "%2e", "%2e%2e%2fsecret", "toy%2f..%2f..%2fsecret"])
@pytest.mark.parametrize("rest", ["", "/events", "/metrics", "/activity", "/evaluations", "/traces", "/pairs"])
def test_what_is_no_run_is_404(api: TestClient, storage: Path, path: str, rest: str) -> None:
    write_finished_run(storage)
    secret = storage.parent / "secret"
    secret.mkdir()
    for beside in (secret, storage.parent, storage):
        (beside / "run.json").write_text((storage / "toy" / "run.json").read_text())
    assert api.get(f"/v1/runs/{path}{rest}").status_code == 404


def test_a_run_at_work_says_how_far_it_is(api: TestClient, storage: Path) -> None:
    layout = write_finished_run(storage)
    record = json.loads(layout.state.read_text())
    record["phases"]["SEED"]["state"] = "running"
    write_state(layout, state="running", phases=record["phases"])
    progress = {"kind": "seed.progress", "total": 100, "traces": 8, "right": 2, "traces_per_s": 5.0}
    events(
        layout,
        {"time": "2024-01-01T00:00:00.000Z", "kind": "phase.start", "phase": "SEED"},
        {"time": "2024-01-01T00:00:10.000Z", "done": 20} | progress,
        {"time": "2024-01-01T00:00:30.000Z", "done": 60} | progress,
        cut='{"time": "2024-01-01T00:00:31.000Z", "ki',
    )
    with RunLock(layout.lock):
        found = api.get("/v1/runs/toy").json()
    assert found["state"] == "running"
    assert (found["progress"]["phase"], found["progress"]["done"], found["progress"]["total"]) == ("SEED", 60, 100)
    assert found["progress"]["seconds_left"] == pytest.approx(20.0)
    assert found["progress"]["details"] == "5.0 traces/s, 25.0 % right"


def test_a_killed_run_is_told_from_one_at_work(api: TestClient, storage: Path) -> None:
    write_state(write_finished_run(storage), state="running")
    found = api.get("/v1/runs/toy").json()
    assert (found["state"], found["progress"]) == ("killed", None)


def test_a_cluster_that_is_gone_leaves_the_files_to_be_read(api: TestClient, jobs: FakeJobs, storage: Path) -> None:
    write_finished_run(storage)
    jobs.reached = False
    assert api.get("/v1/runs/toy").json()["state"] == "done"
    assert api.get("/healthz").status_code == 200
    ready = api.get("/readyz")
    assert (ready.status_code, ready.json()["storage"]) == (503, "ok")
    assert ready.json()["cluster"].startswith("no Ray cluster answers")
    assert api.post("/v1/runs/toy/stop").status_code == 502


def test_events_come_page_by_page_and_whole_lines_only(api: TestClient, storage: Path) -> None:
    layout = write_finished_run(storage)
    events(layout, *({"kind": "note", "text": f"é{n}"} for n in range(5)), cut='{"kind": "no')
    first = api.get("/v1/runs/toy/events", params={"limit": 2}).json()
    assert ([item["text"] for item in first["items"]], first["more"]) == (["é0", "é1"], True)
    rest = api.get("/v1/runs/toy/events", params={"after": first["next"]}).json()
    assert ([item["text"] for item in rest["items"]], rest["more"]) == (["é2", "é3", "é4"], False)
    events(layout, cut='te", "text": "5"}\n')
    news = api.get("/v1/runs/toy/events", params={"after": rest["next"]}).json()
    assert [item["text"] for item in news["items"]] == ["5"]
    # A file that was cut since, as with lines of a dead attempt, begins anew.
    layout.events.write_text(json.dumps({"kind": "note", "text": "anew"}) + "\n")
    assert api.get("/v1/runs/toy/events", params={"after": news["next"]}).json()["items"][0]["text"] == "anew"


def test_metrics_of_a_run_that_has_none_yet_are_an_empty_page(api: TestClient, storage: Path) -> None:
    write_finished_run(storage)
    assert api.get("/v1/runs/toy/metrics").json() == {"items": [], "next": 0, "more": False}


def test_events_are_streamed_to_their_end_and_on_from_where_a_reader_was(api: TestClient, storage: Path) -> None:
    layout = write_finished_run(storage)
    events(layout, *({"kind": "note", "text": str(n)} for n in range(3)))
    accept = {"Accept": "text/event-stream"}
    answer = api.get("/v1/runs/toy/events", headers=accept)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *seen, end = [dict(line.split(": ", 1) for line in part.splitlines()) for part in answer.text.strip().split("\n\n")]
    assert [json.loads(event["data"])["text"] for event in seen] == ["0", "1", "2"]
    assert end == {"event": "end", "data": "{}"}
    again = api.get("/v1/runs/toy/events", headers=accept | {"Last-Event-ID": seen[1]["id"]})
    assert [line for line in again.text.splitlines() if "text" in line] == ['data: {"kind": "note", "text": "2"}']
    assert api.get("/v1/runs/nothing/events", headers=accept).status_code == 404


def test_streams_that_are_asked_for_at_once_stay_within_their_bound_and_give_their_places_back(
    storage: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orpo_ray.service.app.MOST_STREAMS", 2)
    app = create_app(Runs(storage, jobs), None)

    async def asked_at_once(count: int) -> list[int]:
        """Statuses of so many streams, which are open together until each has begun or was refused."""
        statuses: list[int] = []
        all_begun = asyncio.Event()

        async def one() -> None:
            messages = [{"type": "http.request", "body": b""}]

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop()
                await all_begun.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])
                    if len(statuses) == count:
                        all_begun.set()

            headers = [(b"accept", b"text/event-stream")]
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/v1/runs/toy/events",
                "query_string": b"",
                "headers": headers,
            }
            await app(scope, receive, send)

        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(count))), 30)
        return sorted(statuses)

    async def twice() -> None:
        assert await asked_at_once(5) == [200, 200, 503, 503, 503]
        assert await asked_at_once(2) == [200, 200]

    with RunLock(write_finished_run(storage).lock):  # somebody works on it: its stream goes on
        asyncio.run(twice())


def test_a_look_gives_all_that_was_not_seen(api: TestClient, storage: Path) -> None:
    layout = write_finished_run(storage)
    events(layout, *({"kind": "note", "text": str(n)} for n in range(2)))
    layout.metrics.write_text('{"step": 1}\n{"step": 2}\n')
    first = api.get("/v1/runs/toy/live", params={"events": 0}).json()
    assert first["run"] == api.get("/v1/runs/toy").json()
    assert first["activity"] == api.get("/v1/runs/toy/activity").json()
    assert first["events"] == api.get("/v1/runs/toy/events").json()
    assert first["metrics"] == api.get("/v1/runs/toy/metrics").json()
    assert first["again_s"] == 2
    layout.metrics.open("a").write('{"step": 3}\n')
    second = api.get("/v1/runs/toy/live", params={"metrics": first["metrics"]["next"]}).json()
    assert (second["events"]["items"], second["metrics"]["items"]) == ([], [{"step": 3}])
    assert api.get("/v1/runs/nothing/live").status_code == 404


def test_a_look_at_a_long_run_is_followed_by_the_next_at_once(api: TestClient, storage: Path) -> None:
    write_finished_run(storage).metrics.write_text("".join(f'{{"step": {step}}}\n' for step in range(1001)))
    first = api.get("/v1/runs/toy/live").json()
    assert (len(first["metrics"]["items"]), first["metrics"]["more"], first["again_s"]) == (1000, True, 0)
    second = api.get("/v1/runs/toy/live", params={"metrics": first["metrics"]["next"]}).json()
    assert (second["metrics"]["items"], second["again_s"]) == ([{"step": 1000}], 2)


def test_a_run_that_waits_for_the_cluster_is_looked_at_without_files(
    api: TestClient, jobs: FakeJobs, storage: Path
) -> None:
    jobs.jobs["waiting", str(storage)] = RunState.PENDING
    found = api.get("/v1/runs/waiting/live", params={"events": 0}).json()
    assert (found["run"]["state"], found["run"]["report"]) == ("pending", None)
    assert found["activity"]["items"] == found["events"]["items"] == found["metrics"]["items"] == []


def test_evaluations_come_with_samples(api: TestClient, storage: Path) -> None:
    write_finished_run(storage)
    items = api.get("/v1/runs/toy/evaluations").json()["items"]
    assert [(item["epoch"], item["correct"]) for item in items] == [(0, 142), (1, 190), (2, 237)]
    assert items[0]["samples"][0]["gold"] == "6"
    assert all("right" not in item for item in items)


def test_traces_and_pairs_are_filtered_and_come_page_by_page(api: TestClient, storage: Path) -> None:
    write_traced_run(storage)
    wrong = api.get("/v1/runs/toy/traces", params={"source": "teacher", "verdict": "wrong", "limit": 1}).json()
    assert [row["verdict"] for row in wrong["items"]] == ["wrong"]
    rest = api.get(
        "/v1/runs/toy/traces", params={"source": "teacher", "verdict": "wrong", "after": wrong["next"]}
    ).json()
    assert len(rest["items"]) == 1
    assert rest["next"] is None
    assert rest["items"][0]["prompt_id"] != wrong["items"][0]["prompt_id"]
    pairs = api.get("/v1/runs/toy/pairs", params={"version": "1..", "source": "live"}).json()["items"]
    assert {(pair["version"], pair["truncated"], pair["trained"]) for pair in pairs} == {(1, True, False)}
    assert api.get("/v1/runs/toy/pairs", params={"overlap": "much"}).status_code == 422
    assert api.get("/v1/runs/toy/pairs", params={"limit": 1000}).status_code == 422


def test_a_run_at_work_is_stopped_and_one_that_is_over_is_left(api: TestClient, jobs: FakeJobs, storage: Path) -> None:
    layout = write_finished_run(storage)
    assert api.post("/v1/runs/toy/stop").json()["state"] == "done"
    jobs.jobs["toy", str(storage)] = RunState.RUNNING
    assert api.post("/v1/runs/toy/stop").status_code == 200
    assert jobs.jobs["toy", str(storage)] is RunState.STOPPED
    with RunLock(layout.lock):
        answer = api.post("/v1/runs/toy/stop")
    assert answer.status_code == 409
    assert "no job of this cluster" in answer.json()["detail"]


def test_another_service_on_the_same_storage_knows_the_same_runs(api: TestClient, storage: Path) -> None:
    write_finished_run(storage)
    with TestClient(create_app(Runs(storage, FakeJobs(reached=False)), None)) as another:
        assert another.get("/v1/runs").json() == api.get("/v1/runs").json()


def test_browsers_are_told_to_load_nothing_from_elsewhere(api: TestClient) -> None:
    answer = api.get("/healthz")
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_browser_that_asks_for_an_icon_gets_the_page_s_without_a_token(api: TestClient) -> None:
    api.headers.pop("authorization")
    icon = api.get("/favicon.ico")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
    assert icon.content == api.get("/icon.svg").content


def test_openapi_names_every_route_and_what_it_gives(api: TestClient) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/healthz", "/readyz", "/v1/runs", "/v1/runs/{name}", "/v1/runs/{name}/stop", "/v1/runs/{name}/events",
        "/v1/runs/{name}/live", "/v1/runs/{name}/activity", "/v1/runs/{name}/metrics", "/v1/runs/{name}/evaluations", "/v1/runs/{name}/traces", "/v1/runs/{name}/pairs",
    }  # fmt: skip
    for path in paths.values():
        for route in path.values():
            assert route["summary"]
