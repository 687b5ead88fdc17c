"""`Client` with the address of a service: the same calls, results and errors as with a dashboard's."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orpo_ray import AsyncClient, Client
from orpo_ray.client import (
    NotAuthorisedError,
    Placement,
    RefusedError,
    RunFailedError,
    RunNotFinishedError,
    RunState,
    UnknownRunError,
)
from orpo_ray.controller.lock import RunLock
from orpo_ray.errors import ConfigError, InputError, WaitTimeout
from tests.tiny.service import TOKEN, Service
from tests.unit.report.finished import write_finished_run, write_state
from tests.unit.report.traced import METRICS, config, write_traced_run
from tests.unit.service.fake_jobs import FakeJobs


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "runs").mkdir()
    service = Service(tmp_path / "runs", FakeJobs())
    service.start()
    yield service
    service.stop()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, TOKEN) as client:
        yield client


def test_a_run_is_submitted_to_the_services_own_storage(client: Client, service: Service) -> None:
    run = client.submit(config(), fresh=True)
    ((sent, fresh),) = service.jobs.submitted
    assert (run.id, sent.storage.path, fresh) == ("toy", str(service.storage), True)
    assert run.status().state is RunState.PENDING
    with pytest.raises(RefusedError, match="works on this run already"):
        client.submit(config())


def test_what_the_service_cannot_do_is_refused_here(client: Client, service: Service) -> None:
    with pytest.raises(InputError, match="driver, working_dir and env"):
        client.submit(config(), driver=Placement(cpus=1))
    with pytest.raises(ConfigError, match="tusk"):
        client.submit({"tusk": {}})
    elsewhere = config().model_dump(mode="json", by_alias=True) | {"storage": {"path": "/elsewhere"}}
    with pytest.raises(RefusedError, match=r"storage\.path: is /elsewhere"):
        client.submit(elsewhere)
    assert service.jobs.submitted == []


def test_a_finished_run_says_the_same_as_through_a_dashboard(client: Client, service: Service) -> None:
    layout = write_traced_run(service.storage)
    with layout.events.open("w") as file:
        file.write(json.dumps({"phase": "TEACH", "kind": "phase.start"}) + "\n")
        file.write(json.dumps({"phase": "TEACH", "kind": "note", "text": "one more"}) + "\n")
    (run,) = client.runs()
    done = run.wait(timeout=5)
    assert (done.state, done.name, done.storage, done.phase) == (RunState.DONE, "toy", str(service.storage), "EXPORT")
    result = run.result()
    assert [(row.split, row.epoch, row.correct) for row in result.evaluations] == [
        ("test", 0, 142), ("test", 1, 190), ("test", 2, 237),
    ]  # fmt: skip
    assert result.teacher is not None
    assert result.teacher.correct == 463
    assert run.metrics() == [METRICS]
    assert [event["kind"] for event in run.events()] == ["phase.start", "note"]
    assert "".join(run.logs(follow=True)) == "TEACH    …\n         one more\n"
    assert len(run.traces()) == 8
    assert len(run.traces("teacher", limit=3)) == 3
    assert {trace.source for trace in run.traces("student")} == {"student"}
    assert run.stop().state is RunState.DONE


def test_errors_come_by_their_causes(client: Client, service: Service) -> None:
    with pytest.raises(UnknownRunError, match="nothing"):
        client.run("nothing")
    with (
        Client(service.url, "another-token-of-that-length") as other,
        pytest.raises(NotAuthorisedError, match="its token"),
    ):
        other.runs()
    layout = write_finished_run(service.storage)
    write_state(layout, state="failed", error="teacher: nobody answers")
    with pytest.raises(RunFailedError, match="nobody answers"):
        client.run("toy").result()
    layout = write_finished_run(service.storage, "busy")
    write_state(layout, state="running")
    with RunLock(layout.lock):
        run = client.run("busy")
        with pytest.raises(WaitTimeout, match="is running"):
            run.wait(timeout=0)
        with pytest.raises(RunNotFinishedError, match="running"):
            run.result()
        with pytest.raises(RefusedError, match="no job of this cluster"):
            run.stop()
    service.jobs.jobs["late", str(service.storage)] = RunState.REFUSED
    with pytest.raises(RefusedError, match="job-late was refused"):
        client.run("late").wait(timeout=5)


def test_the_twin_for_event_loops(client: Client, service: Service) -> None:
    write_finished_run(service.storage)

    async def seen() -> tuple[list[str], RunState, str]:
        async with AsyncClient(service.url, TOKEN) as other:
            (run,) = await other.runs()
            return [run.id], (await run.status()).state, await other.ray_version()

    assert asyncio.run(seen()) == (["toy"], RunState.DONE, "2.0")
    assert client.ray_version() == "2.0"
