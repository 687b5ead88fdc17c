"""Runs as Ray jobs, for real: a head that offers no CPU, a worker node, a token; by the client, the command line and Ray's own."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orpo_ray import AsyncClient, Client
from orpo_ray.client import NotAuthorisedError, Placement, RefusedError, RunFailedError, RunState
from orpo_ray.client.files import What
from orpo_ray.client.local import LocalCluster, end_tree, free_ports
from orpo_ray.config.secrecy import is_loopback_host
from tests.tiny.api import FakeApi, fake_api
from tests.tiny.cluster import ROOT
from tests.tiny.listeners import listening
from tests.tiny.models import make_model
from tests.tiny.runs import tiny_config
from tests.tiny.sums_api import sums_script

ON_WORKER = Placement(cpus=1, resources={"driver": 1})
# What must never be seen again; the cluster's own token is the third.
API_KEY, HUB_TOKEN = "sk-planted-4d1f6f0c9a", "hf_planted0b7e55c2"


@dataclass(frozen=True)
class TestCluster:
    """Attributes:
    token: the cluster's.
    environment: of a program that talks to it.
    """

    __test__ = False
    head: LocalCluster
    token: str
    environment: dict[str, str]
    directory: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    directory = tmp_path_factory.mktemp("jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("ORPO_TEST_API_KEY", API_KEY)
        patch.setenv("HF_TOKEN", HUB_TOKEN)
        head = LocalCluster(cpus=0)
        try:
            environment = dict(os.environ) | {
                "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": head.token, "RAY_API_SERVER_ADDRESS": head.address,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            }  # fmt: skip
            # Programs that talk to the cluster have no need of the secrets of its nodes.
            for name in ("ORPO_TEST_API_KEY", "HF_TOKEN"):
                environment.pop(name)
            node = _join(head, environment | {"ORPO_TEST_API_KEY": API_KEY, "HF_TOKEN": HUB_TOKEN})
            try:
                yield TestCluster(head, head.token, environment, directory)
            finally:
                end_tree(node)
        finally:
            head.close()


@pytest.fixture(scope="module")
def client(cluster: TestCluster) -> Iterator[Client]:
    with Client(cluster.head.address, cluster.token) as client:
        yield client


@pytest.fixture(scope="module")
def teacher() -> Iterator[FakeApi]:
    with fake_api(sums_script) as api:
        yield api


@pytest.fixture(scope="module")
def student(cluster: TestCluster) -> Path:
    return make_model(cluster.directory / "models" / "student")


def a_run(cluster: TestCluster, student: Path, teacher: FakeApi, name: str, **sections: Any) -> Path:
    """The YAML file of a tiny run, whose teacher is an API that wants a key."""
    asks = {"backend": "openai", "model": "fake", "base_url": teacher.base_url, "api_key_env": "ORPO_TEST_API_KEY"}
    config = tiny_config(
        cluster.directory / "storage", student, name=name, **({"teacher": asks | {"retries": 0}} | sections)
    )
    file = cluster.directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True)))
    return file


def command(cluster: TestCluster, *words: str, code: int = 0) -> str:
    """Run a command line, as somebody at a terminal would; what it printed."""
    ended = subprocess.run(
        words, cwd=cluster.directory, env=cluster.environment, capture_output=True, text=True, timeout=280
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_a_run_from_submission_to_result(cluster: TestCluster, client: Client, student: Path, teacher: FakeApi) -> None:
    """Submitted by the command line to the worker node, stopped in training, gone on with by `ray job submit`."""
    file = a_run(cluster, student, teacher, "whole", train={"epochs": 4})
    metrics = cluster.directory / "storage" / "whole" / "metrics.jsonl"

    said = command(cluster, "orpo-ray", "submit", str(file), "--driver-cpus", "1", "--driver-resource", "driver=1")
    first = client.run(said.split()[1])
    with pytest.raises(RefusedError, match=f"whole: {first.id} works on this run already"):
        client.submit(file)
    _until(lambda: first.status().node is not None, 100, first.status)
    assert first.status().node != _node_of_head(client)
    head = psutil.Process(cluster.head.pid)
    found = listening([head, *head.children(recursive=True)])
    assert any(address == cluster.head.address.removeprefix("http://") for _, address in found)
    assert [one for one in found if not is_loopback_host(one[1].rpartition(":")[0])] == []

    # From its first steps to its last are some seconds only, within which it is to be stopped.
    _until(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 1, 200, first.status)
    running = first.status()
    assert (running.state, running.phase, running.name) == (RunState.RUNNING, "DISTILL", "whole")
    assert command(cluster, "orpo-ray", "stop", "whole") == f"{first.id}: stopped\n"
    record = json.loads((metrics.parent / "run.json").read_text())
    assert (record["state"], record["phases"]["DISTILL"]["state"]) == ("interrupted", "interrupted")

    said = command(
        cluster, "ray", "job", "submit", "--entrypoint-num-cpus", "1", "--entrypoint-resources", '{"driver": 1}',
        "--", "orpo-ray", "run", str(file),
    )  # fmt: skip
    assert "TEACH    found; took" in said
    second = client.runs()[-1]
    assert second.id != first.id
    done = second.wait(timeout=10)
    assert (done.state, done.name, done.exit_code) == (RunState.DONE, "whole", 0)

    result = second.result()
    assert Path(result.path).joinpath("model.safetensors").is_file()
    assert [(row.split, row.epoch, row.total) for row in result.evaluations] == [("test", e, 8) for e in range(5)]
    assert result.teacher is not None
    assert (result.teacher.split, result.teacher.rate) == ("test", 1.0)
    steps = [line["step"] for line in second.metrics()]
    assert steps == list(range(1, len(steps) + 1))
    kinds = [event["kind"] for event in second.events()]
    assert kinds.count("run.start") == 2
    assert kinds[-1] == "run.done"
    traces = second.traces("teacher", limit=5)
    assert len(traces) == 5
    assert {trace.source for trace in traces} == {"teacher"}
    assert {trace.source for trace in second.traces("student")} == {"student"}

    # The same, as a client that does not see the storage reads it.
    there = client._http.finish(_read_on_cluster(second.id, client))
    assert there == second.events()
    _no_secret_is_left(cluster, client, teacher)


def test_what_is_wrong_with_a_configuration_is_the_error(
    cluster: TestCluster, client: Client, student: Path, teacher: FakeApi
) -> None:
    file = a_run(cluster, Path("/nowhere/student"), teacher, "refused")
    run = client.submit(file, driver=ON_WORKER)
    with pytest.raises(RefusedError, match=r"student\.model: /nowhere/student"):
        run.wait(timeout=120)
    assert run.status().exit_code == 2
    said = command(
        cluster, "ray", "job", "submit", "--entrypoint-resources", '{"driver": 1}', "--", "orpo-ray", "run", str(file), code=1
    )  # fmt: skip
    assert "orpo-ray: student.model: /nowhere/student" in said


def test_a_failed_run_says_where_and_why(cluster: TestCluster, client: Client, student: Path, teacher: FakeApi) -> None:
    (port,) = free_ports(1)
    nobody = FakeApi(f"http://127.0.0.1:{port}/v1")
    said = command(
        cluster, "orpo-ray", "submit", str(a_run(cluster, student, nobody, "failed")), "--wait",
        "--driver-resource", "driver=1", code=1,
    )  # fmt: skip
    assert f"teacher: {nobody.base_url} cannot be reached" in said
    with pytest.raises(RunFailedError) as failed:
        client.run("failed").result()
    assert failed.value.phase == "TEACH"
    assert failed.value.reason.startswith(f"teacher: {nobody.base_url} cannot be reached")
    assert "failed" in command(cluster, "orpo-ray", "list")
    assert "teacher: " in command(cluster, "orpo-ray", "status", "failed")


def test_another_token_is_not_let_in(cluster: TestCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for token, sentence in ((None, "none was sent"), ("0" * 64, "another token")):
        with Client(cluster.head.address, token) as client, pytest.raises(NotAuthorisedError, match=sentence):
            client.runs()


def test_the_twin_for_event_loops(cluster: TestCluster) -> None:
    async def ids() -> tuple[list[str], str]:
        async with AsyncClient(cluster.head.address, cluster.token) as client:
            runs = await client.runs()
            return [run.id for run in runs], "".join([text async for text in runs[0].logs(follow=True)])

    found, log = asyncio.run(ids())
    with Client(cluster.head.address, cluster.token) as client:
        assert found == [run.id for run in client.runs()]
        assert log == "".join(client.runs()[0].logs())


# `ray start`, but for its turning a loopback address into another, at which a cluster on loopback does not answer; nor do
# the processes of its node.
RAY_START = """
import os
from ray._private import ray_constants, services
services.resolve_ip_for_localhost = lambda host: host
os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
from ray.scripts.scripts import main
main()
"""


def _join(head: LocalCluster, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A worker node on this machine, which alone offers CPUs, and the resource `driver`."""
    ports = [f"--dashboard-agent-listen-port={free_ports(1)[0]}"]
    options = ["--num-cpus=10", '--resources={"driver": 1}', "--labels=orpo-ray.io/role=driver"]
    options += ["--object-store-memory=300000000", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    return subprocess.Popen(
        [sys.executable, "-c", RAY_START, "start", f"--address={head.gcs_address}", "--block", *options, *ports],
        env={name: value for name, value in environment.items() if name != "RAY_API_SERVER_ADDRESS"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _node_of_head(client: Client) -> str | None:
    """The node of a job that asks for nothing."""
    from orpo_ray.client import jobs

    identity = client._http.finish(jobs.submit_job({"entrypoint": "true"}))
    _until(lambda: client._http.finish(jobs.job(identity)).over, 60, lambda: identity)
    return client._http.finish(jobs.job(identity)).node


def _read_on_cluster(identity: str, client: Client) -> Any:
    from orpo_ray.client.operations import _named, _read_there

    job = yield from __import__("orpo_ray.client.jobs", fromlist=["job"]).job(identity)
    name, storage = yield from _named(job)
    return (yield from _read_there(storage, name, What.EVENTS, None))


def _no_secret_is_left(cluster: TestCluster, client: Client, teacher: FakeApi) -> None:
    """Search all that the run wrote, all that Ray logged, and all that the Jobs API tells."""
    assert f"Bearer {API_KEY}" in teacher.keys
    secrets = [API_KEY, HUB_TOKEN, cluster.token]
    told = json.dumps([client._http.finish(_raw(path)) for path in ("/api/jobs/", "/api/version")])
    places = {"the Jobs API": told}
    files = [
        *cluster.directory.rglob("*"),
        *cluster.head.here.directory.rglob("*.yaml"),
        *cluster.head.here.directory.rglob("logs/**/*"),
    ]
    for file in files:
        if file.is_file():
            places[str(file)] = file.read_bytes().decode("latin-1")
    assert len(places) > 50
    found = {(secret[:12], place) for place, text in places.items() for secret in secrets if secret in text}
    assert found == set()


def _raw(path: str) -> Any:
    from orpo_ray.client.steps import Request

    answer = yield Request("GET", path)
    return answer.text


def _until(true: Any, seconds: float, otherwise: Any) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.1)
