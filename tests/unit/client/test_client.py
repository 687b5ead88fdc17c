"""Client and AsyncClient against a fake dashboard."""

import asyncio
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from orpo_ray import AsyncClient, Client
from orpo_ray.client import (
    ClusterUnreachableError,
    NotAuthorisedError,
    Placement,
    RefusedError,
    RunFailedError,
    RunNotFinishedError,
    RunState,
    UnknownRunError,
    operations,
)
from orpo_ray.client.local import free_ports
from orpo_ray.errors import ConfigError, InputError, WaitTimeout
from tests.unit.client.dashboard import TOKEN, FakeDashboard

PLACE = {"orpo_ray.run": "toy", "orpo_ray.storage": "/storage/runs"}


def test_a_submission(client: Client, dashboard: FakeDashboard, config: dict[str, Any]) -> None:
    driver = Placement(cpus=1, resources={"driver": 1}, labels={"orpo-ray.io/role": "driver"})
    run = client.submit(config, fresh=True, driver=driver, env={"HF_HOME": "/models"})
    (sent,) = dashboard.submitted
    assert run.id == sent["submission_id"]
    assert run.id.startswith("toy-2")
    assert sent["entrypoint"] == "orpo-ray run run.yaml --fresh"
    assert sent["metadata"] == PLACE | {"orpo_ray.version": "0.1.0"}
    assert sent["entrypoint_num_cpus"] == 1
    assert sent["entrypoint_resources"] == {"driver": 1}
    assert sent["entrypoint_label_selector"] == {"orpo-ray.io/role": "driver"}
    assert sent["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "60", "HF_HOME": "/models"}
    name = sent["runtime_env"]["working_dir"].removeprefix("gcs://")
    with zipfile.ZipFile(io.BytesIO(dashboard.packages[name])) as package:
        assert package.namelist() == ["run.yaml"]
        written = yaml.safe_load(package.read("run.yaml"))
    assert written["train"]["epochs"] == 5  # every option is spelled out
    assert TOKEN not in str(dashboard.submitted)


def test_the_same_configuration_is_uploaded_once(
    client: Client, dashboard: FakeDashboard, config: dict[str, Any]
) -> None:
    first = client.submit(config)
    client.run(first.id).stop()
    assert client.submit(config).id != first.id
    assert dashboard.uploads == 1


def test_without_a_placement_the_driver_goes_to_the_head(
    client: Client, dashboard: FakeDashboard, config: dict[str, Any]
) -> None:
    client.submit(config)
    assert not any(key.startswith("entrypoint_") for key in dashboard.submitted[0])


def test_mistakes_are_told_before_anything_is_sent(
    client: Client, dashboard: FakeDashboard, config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"2 mistakes[\s\S]*policy\.phy[\s\S]*train\.epochs"):
        client.submit(config | {"policy": {"phy": 1}, "train": {"epochs": 0}})
    with pytest.raises(InputError, match=r"storage\.path: runs is relative"):
        client.submit(config | {"storage": {"path": "runs"}})
    with pytest.raises(InputError, match=r"no such file"):
        client.submit("nowhere.yaml")
    with pytest.raises(InputError, match="--env: OPENAI_API_KEY would be a secret") as refused:
        client.submit(config, env={"OPENAI_API_KEY": "sk-1234"})
    assert "sk-1234" not in str(refused.value)
    assert not dashboard.submitted
    assert not dashboard.packages


@pytest.mark.parametrize("metadata", [PLACE, {}])
def test_a_run_that_somebody_works_on_is_refused(
    client: Client, dashboard: FakeDashboard, config: dict[str, Any], metadata: dict[str, str]
) -> None:
    dashboard.add("theirs", "RUNNING", metadata=metadata)
    dashboard.logs["theirs"] = "run toy at /storage/runs/toy\n"
    with pytest.raises(RefusedError, match="toy: theirs works on this run already"):
        client.submit(config)
    assert client.submit(config | {"name": "another"}).id.startswith("another-")


def test_runs_are_found_by_id_and_by_name(client: Client, dashboard: FakeDashboard) -> None:
    dashboard.add("toy-1", "SUCCEEDED", metadata=PLACE)
    dashboard.add("toy-2", "SUCCEEDED", metadata=PLACE)
    dashboard.add("raysubmit_x", "RUNNING", entrypoint="/opt/venv/bin/orpo-ray run /etc/run.yaml")
    dashboard.add("other", "RUNNING", entrypoint="python train.py --note 'not orpo-ray running'")
    dashboard.logs["raysubmit_x"] = "run mine at /storage/mine\n"
    assert [run.id for run in client.runs()] == ["toy-1", "toy-2", "raysubmit_x"]
    assert client.run("toy").id == "toy-2"
    assert client.run("toy-1").id == "toy-1"
    assert client.run("mine").id == "raysubmit_x"
    with pytest.raises(UnknownRunError, match=r"nobody: .*the newest there are toy-1, toy-2, raysubmit_x"):
        client.run("nobody")


def test_wait_returns_what_is_done_and_raises_what_is_not(client: Client, dashboard: FakeDashboard) -> None:
    dashboard.add("a", "SUCCEEDED", driver_exit_code=0)
    assert client.run("a").wait().state is RunState.DONE
    dashboard.add("b", "FAILED", driver_exit_code=2)
    dashboard.logs["b"] = "PREPARE  …\norpo-ray: student.model: no such directory\n"
    with pytest.raises(RefusedError, match=r"^student\.model: no such directory$"):
        client.run("b").wait()
    dashboard.add("c", "FAILED", driver_exit_code=1)
    dashboard.logs["c"] = (
        "PREPARE  …\nDISTILL  …\norpo-ray: the loss is not finite\nWhat is finished is kept. Go on with\n  x"
    )
    with pytest.raises(RunFailedError) as failed:
        client.run("c").wait()
    assert (failed.value.run, failed.value.phase, failed.value.reason) == ("c", "DISTILL", "the loss is not finite")
    dashboard.add("d", "STOPPED")
    assert client.run("d").wait().state is RunState.STOPPED


def test_wait_has_a_limit_and_says_what_it_waited_for(client: Client, dashboard: FakeDashboard) -> None:
    dashboard.add("a", "RUNNING")
    dashboard.logs["a"] = "PREPARE  …\nTEACH    …\n"
    with pytest.raises(WaitTimeout, match=r"a was not over within 0\.05 s: it is running in TEACH"):
        client.run("a").wait(timeout=0.05)


def test_a_result_is_asked_too_early(client: Client, dashboard: FakeDashboard) -> None:
    dashboard.add("a", "RUNNING", metadata=PLACE)
    with pytest.raises(RunNotFinishedError, match="a is running"):
        client.run("a").result()


def test_every_piece_of_a_log_is_printed_once(client: Client, dashboard: FakeDashboard) -> None:
    pieces = [f"line {number}\n" for number in range(5)]
    dashboard.add("a", "RUNNING")
    dashboard.coming["a"] = pieces.copy()
    assert "".join(client.run("a").logs(follow=True)) == "".join(pieces)


def test_a_log_that_is_not_followed_ends(client: Client, dashboard: FakeDashboard) -> None:
    dashboard.add("a", "RUNNING")
    dashboard.logs["a"] = "so far\n"
    assert list(client.run("a").logs()) == ["so far\n"]


def test_stop(client: Client, dashboard: FakeDashboard) -> None:
    dashboard.add("a", "RUNNING")
    dashboard.add("b", "SUCCEEDED", driver_exit_code=0)
    assert client.run("a").stop().state is RunState.STOPPED
    assert client.run("b").stop().state is RunState.DONE
    assert dashboard.stops == ["a"]


def test_files_that_are_not_seen_here_are_read_by_a_job(client: Client, dashboard: FakeDashboard) -> None:
    dashboard.add("a", "SUCCEEDED", metadata=PLACE | {"orpo_ray.storage": "/only/there"})
    dashboard.coming["raysubmit_1"] = [
        'Running entrypoint\n--- orpo-ray read begins ---\n{"step": 1}\n{"step": 2}\n--- orpo-ray read ends ---\n'
    ]

    def finishes(identity: str) -> None:
        dashboard.jobs[identity] |= {"status": "SUCCEEDED", "driver_exit_code": 0}

    original = dashboard.add

    def add(identity: str, status: str, **more: Any) -> None:
        original(identity, status, **more)
        finishes(identity)

    dashboard.add = add  # type: ignore[method-assign]
    assert client.run("a").metrics() == [{"step": 1}, {"step": 2}]
    assert dashboard.submitted[0]["entrypoint"] == "orpo-ray read toy metrics --storage /only/there"
    assert "raysubmit_1" not in dashboard.jobs  # it leaves nothing in the list


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(ClusterUnreachableError) as error:
        client.runs()
    assert f"no Ray cluster answers at http://127.0.0.1:{port}" in str(error.value)
    assert "--address" in str(error.value)


def test_who_answers_is_no_dashboard(tmp_path: Path) -> None:
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            Client(f"http://127.0.0.1:{server.server_address[1]}") as client,
            pytest.raises(ClusterUnreachableError, match="no Ray dashboard"),
        ):
            client.runs()
    finally:
        server.shutdown()
        server.server_close()


def test_no_token_and_another_token(dashboard: FakeDashboard) -> None:
    with Client(dashboard.url) as client, pytest.raises(NotAuthorisedError, match="none was sent"):
        client.runs()
    with Client(dashboard.url, "x" * 64) as client, pytest.raises(NotAuthorisedError, match="another token"):
        client.ray_version()


def test_a_short_loss_of_the_connection_is_waited_through(
    client: Client, dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.add("a", "SUCCEEDED", driver_exit_code=0)
    run, losses = client.run("a"), iter([True, True])
    known = operations._known

    def flaky(identity: str) -> Any:
        if next(losses, False):
            raise ClusterUnreachableError("the port-forward broke")
        return (yield from known(identity))

    monkeypatch.setattr(operations, "_known", flaky)
    assert run.wait().state is RunState.DONE


def test_the_token_is_in_no_representation(client: Client) -> None:
    assert TOKEN not in repr(client)
    assert TOKEN not in repr(vars(client))


def test_the_twin_gives_the_same(client: Client, dashboard: FakeDashboard, config: dict[str, Any]) -> None:
    dashboard.add("a", "FAILED", driver_exit_code=1)
    dashboard.logs["a"] = "SEED     …\norpo-ray: no\n"
    dashboard.add("b", "RUNNING")
    dashboard.coming["b"] = ["one\n", "two\n"]

    async def twin() -> None:
        async with AsyncClient(dashboard.url, TOKEN) as other:
            assert await other.ray_version() == client.ray_version() == "2.60.0"
            assert [run.id for run in await other.runs()] == [run.id for run in client.runs()]
            run = await other.run("a")
            assert await run.status() == client.run("a").status()
            with pytest.raises(RunFailedError, match="a failed in SEED: no"):
                await run.wait()
            with pytest.raises(RunFailedError):
                await run.result()
            assert "".join([text async for text in (await other.run("b")).logs(follow=True)]) == "one\ntwo\n"
            submitted = await other.submit(config)
            assert (await submitted.stop()).state is RunState.STOPPED
            with pytest.raises(UnknownRunError):
                await other.run("nobody")

    asyncio.run(twin())


def test_both_clients_have_the_same_methods() -> None:
    from orpo_ray.client import AsyncRun, Run

    for one, other in ((Client, AsyncClient), (Run, AsyncRun)):
        assert {name for name in vars(one) if not name.startswith("_")} == {
            name for name in vars(other) if not name.startswith("_")
        }
