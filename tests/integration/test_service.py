"""`orpo-ray serve` for real: a cluster of its own, a run submitted, followed and stopped, over a restart of the service.

The cluster outlives the service, as under KubeRay; the browser looks at the run where one can be had.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from orpo_ray import Client
from orpo_ray.client import NotAuthorisedError, RunState
from orpo_ray.client.local import LocalCluster, end_tree, free_ports
from orpo_ray.service.pace import SOONEST_S
from tests.tiny.api import fake_api
from tests.tiny.browser import Browser, why_none
from tests.tiny.cluster import ROOT
from tests.tiny.models import make_model
from tests.tiny.processes import session_processes
from tests.tiny.runs import tiny_config
from tests.tiny.sums_api import sums_script

TOKEN = "a-token-that-is-planted-0f3c"
pytestmark = pytest.mark.timeout(500)


class Served:
    """The command in a process; `stop` is Ctrl-C."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / f"serve-{port}.log"
        command = [sys.executable, "-m", "orpo_ray.cli", "serve", "--storage", "storage", "--port", str(port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        until(lambda: "the page" in self.log.read_text(), 150, self.log.read_text, alive=self.process)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) in (0, 130), self.log.read_text()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of the service; this process's own leads to no cluster."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return dict(os.environ) | {"ORPO_RAY_SERVICE_TOKEN": TOKEN}


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[LocalCluster]:
    cluster = LocalCluster(haproxy=True)
    environment |= cluster.environment
    try:
        yield cluster
    finally:
        cluster.close()


def until(true: Callable[[], Any], seconds: float, otherwise: Callable[[], Any], alive: Any = None) -> Any:
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, otherwise()
        assert alive is None or alive.poll() is None, otherwise()
        time.sleep(0.1)
    return value


def niceness_of(process: psutil.Process) -> set[int]:
    """Of its threads."""
    found = set()
    for thread in process.threads():
        with suppress(ProcessLookupError):  # it has just ended
            found.add(os.getpriority(os.PRIO_PROCESS, thread.id))
    return found


def listening(processes: list[psutil.Process]) -> set[str]:
    """Addresses that they listen at."""
    connections = [one for process in processes for one in process.net_connections("tcp")]
    return {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}


def events_of(api: httpx.Client, name: str, wanted: str, last: str = "0") -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events, each with its id, up to the first of the kind `wanted`."""
    seen, identity = [], last
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    with api.stream("GET", f"/v1/runs/{name}/events", headers=headers, timeout=200) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("id: "):
                identity = line.removeprefix("id: ")
            elif line.startswith("data: "):
                seen.append((identity, json.loads(line.removeprefix("data: "))))
                if seen[-1][1].get("kind") == wanted:
                    return seen
    raise AssertionError(f"the stream ended without {wanted}: {[event for _, event in seen][-5:]}")


def test_a_run_is_submitted_followed_and_stopped_through_a_restart(
    tmp_path: Path, environment: dict[str, str], cluster: LocalCluster
) -> None:
    student = make_model(tmp_path / "models" / "student")
    served = Served(tmp_path, environment)
    try:
        with fake_api(sums_script) as teacher:
            asks = {"backend": "openai", "model": "fake", "base_url": teacher.base_url}
            # Long enough not to be through before it is stopped, on any machine.
            config = tiny_config(Path("storage"), student, name="watched", teacher=asks, train={"epochs": 200})
            with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as api:
                assert httpx.get(f"{served.url}/v1/runs").status_code == 401
                assert api.get("/readyz").json()["ready"] is True
                [replica] = session_processes("ServeReplica:orpo-ray-service")
                assert niceness_of(replica) == {19}, "the work on a run goes first"
                if "RAY_SERVE_ENABLE_HA_PROXY" in environment:  # not on a Mac
                    own_ports = listening(session_processes("ha.cfg"))
                    assert own_ports == {"127.0.0.1"}, "HAProxy's own ports are the machine's too"
                with Client(served.url, "b" * 32) as other, pytest.raises(NotAuthorisedError):
                    other.runs()
                with Client(served.url, TOKEN) as client:
                    run = client.submit(config)
                    until(lambda: run.status().phase, 100, run.status)
                    first = events_of(api, "watched", "distill.progress")
                    assert [event["kind"] for _, event in first[:2]] == ["run.start", "phase.start"]
                    assert run.status().state is RunState.RUNNING
                    found = {one["group"] for one in api.get("/v1/runs/watched/activity").json()["items"]}
                    assert {"teacher", "trainer"} <= found

            served.stop()
            assert TOKEN not in served.log.read_text()
            served = Served(tmp_path, environment)
            with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as api:
                # Nothing is lost: the run, its events from where the reader was, its metrics from the first step.
                more = events_of(api, "watched", "distill.progress", last=first[-1][0])
                assert more[0][1]["step"] > first[-1][1]["step"]
                assert api.get("/v1/runs/watched/metrics").json()["items"][0]["step"] == 1
                pairs = api.get("/v1/runs/watched/pairs", params={"limit": 3}).json()["items"]
                assert len(pairs) == 3
                assert all(pair["chosen"] for pair in pairs)
                if why_none() is None:
                    look_at(served.url)
                with Client(served.url, TOKEN) as client:
                    (run,) = client.runs()
                    assert run.stop().state is RunState.STOPPED
                    assert run.status().state is RunState.STOPPED
                kinds = [event["kind"] for event in api.get("/v1/runs/watched/events?limit=1000").json()["items"]]
                assert "run.interrupted" in kinds
    finally:
        end_tree(served.process)


def look_at(url: str) -> None:
    """The run at work, in a browser: it goes on while it is looked at."""
    with Browser() as browser:
        browser.keep_token(url, TOKEN)
        browser.open(f"{url}/#/run/watched")
        browser.sees("trainer")
        step = "return Number(document.querySelector('progress')?.value)"
        before = browser.until(step)
        browser.until(f"{step} > {before}", 60)
        assert browser.console() == []


def test_a_cluster_of_its_own_ends_with_the_service(tmp_path: Path, environment: dict[str, str]) -> None:
    served = Served(tmp_path, environment)
    try:
        answer = httpx.get(f"{served.url}/v1/runs", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.json() == {"items": [], "next": None, "again_s": SOONEST_S}
        below = psutil.Process(served.process.pid).children(recursive=True)
        assert any("raylet" in " ".join(process.cmdline()) for process in below)
        served.stop()
        _, alive = psutil.wait_procs(below, timeout=15)
        assert alive == []
    finally:
        end_tree(served.process)
