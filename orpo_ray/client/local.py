"""A Ray cluster on this machine for one client: loopback only, a random token, ports and files of its own."""

import atexit
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from orpo_ray.client.errors import ClusterError
from orpo_ray.client.haproxy import PORTS, haproxy_environment
from orpo_ray.client.operations import Here
from orpo_ray.config import RunConfig
from orpo_ray.phases.needs import GIB, check_fits, count_parameters, machine_memory

_START_S = 120.0
_END_S = 20.0
_LOGICAL_CPUS = 16
_AUTH = ("RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


class LocalCluster:
    """The cluster. It is `ray start --head --block` in a process below this one, and ends with `close`, or at exit.

    Args:
        cpus: logical ones; as many as a run may want where None.
        options: of `ray start`.
        haproxy: put HAProxy in front of what Serve serves.

    Attributes:
        address: of its dashboard; `gcs_address` is where further nodes of this machine join.
        environment: what a process needs to connect to it as its own processes do.
        here: what submissions to it need to know.
        pid: of the process that all others of the cluster are below.

    Raises:
        ClusterError: Ray did not start; says what it said.
    """

    def __init__(self, cpus: int | None = None, options: Sequence[str] = (), *, haproxy: bool = False) -> None:
        # Short, since Ray's sockets lie in it, whose paths may have 107 bytes.
        self._directory = Path(tempfile.mkdtemp(prefix="orpo-", dir="/tmp"))
        self.token = secrets.token_hex(32)
        self.here = Here(self._directory, check_machine)
        # The GCS, the dashboard, its agent's two, the runtime environments' agent, and the metrics'.
        gcs, dashboard, agent, agent_grpc, environments, metrics, *front = free_ports(6 + PORTS)
        self.address, self.gcs_address = f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address=127.0.0.1", f"--port={gcs}", "--dashboard-host=127.0.0.1"]
        command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--dashboard-agent-grpc-port={agent_grpc}", f"--runtime-env-agent-port={environments}"]
        command += [f"--metrics-export-port={metrics}", f"--temp-dir={self._directory / 'ray'}"]
        command += [f"--num-cpus={max(_LOGICAL_CPUS, os.cpu_count() or 1) if cpus is None else cpus}"]
        command += [f"--object-store-memory={_object_store()}", *options]
        own = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            # Ray turns the loopback address above into another, unless this switch, of Macs by its name, says not to.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            **(haproxy_environment(self._directory, front) if haproxy else {}),
        }
        environment = {name: value for name, value in os.environ.items() if name not in _AUTH}
        # Ray itself is not to be told where its cluster is: it is about to start one.
        self.environment = own | {"RAY_ADDRESS": self.gcs_address}
        environment |= own | {
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        self._log = self._directory / "ray-start.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self.pid = self._process.pid
        atexit.register(self.close)
        try:
            self._wait_until_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every process of the cluster, and remove its files."""
        atexit.unregister(self.close)
        if self._process.returncode is None:
            end_tree(self._process)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _wait_until_up(self) -> None:
        """Until a job could be submitted: the dashboard answers, and knows the agent that would take it."""
        headers = {"Authorization": f"Bearer {self.token}"}
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise ClusterError(f"Ray did not start on this machine:\n{self._said()}")
            try:
                if httpx.get(f"{self.address}/api/jobs/", headers=headers, timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise ClusterError(f"Ray was not up on this machine within {_START_S:g} s:\n{self._said()}")

    def _said(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-15:])


def check_machine(config: RunConfig) -> None:
    """Raises InputError where a run's engines and workers do not fit this machine's memory, as `orpo-ray run` does."""
    check_fits(config, {"memory": machine_memory()}, count_parameters(config.student.model))


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback address that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def end_tree(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all below it: politely, then not."""
    import psutil

    try:
        top = psutil.Process(process.pid)
        tree = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    process.terminate()
    _, alive = psutil.wait_procs(tree, timeout=_END_S / 2)
    for member in alive:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=_END_S / 2)
    process.wait(timeout=_END_S)


def _object_store() -> int:
    """Bytes. The stream's blocks are small; memory is better left to engines and workers."""
    return 400 << 20 if machine_memory() < 64 * GIB else 4 * GIB
