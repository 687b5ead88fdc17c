"""Ray for a run: a cluster of its own on this machine, or one that is there; connected to when first needed."""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.errors import InputError
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.fit import ClusterShape, NodeGroup, check_places
from orpo_ray.phases.needs import AUTOSCALED, GIB, check_fits, count_parameters, logical_cpus, machine_memory
from orpo_ray.phases.phase import Phase
from orpo_ray.tracking.meter import RUN_VARIABLE
from orpo_ray.tracking.told import DIRECTORY_VARIABLE

_END_S = 15.0
_ANSWER_S = 10.0
# Ray sets this one inside a submitted job; RAY_ADDRESS it sets there only sometimes.
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Processes that this one had before Ray was started, so that only Ray's own are ended with it.
_before: set[int] = set()


class OnCluster(Phase):
    """A phase that works on Ray: connects before it works, and not at all where its work is found."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase

    @property
    def name(self) -> str:
        return self._phase.name

    def key(self, context: RunContext) -> str:
        return self._phase.key(context)

    def pairs_key(self, context: RunContext) -> str:
        return self._phase.pairs_key(context)

    def run(self, context: RunContext) -> dict[str, Any]:
        connect(context.config)
        return self._phase.run(context)

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        return self._phase.still_there(context, result)


def embedded() -> bool:
    """Whether a run brings its own cluster along: it is no Ray job, and RAY_ADDRESS names no other."""
    return os.environ.get("RAY_ADDRESS", "local") in ("", "local") and not in_job()


def in_job() -> bool:
    """Whether this process is the driver of a job that was submitted."""
    return _JOB in os.environ


def connect(config: RunConfig) -> None:
    """Connect to Ray, or start it on this machine; nothing happens where that is done already.

    Raises:
        InputError: the run asks for more than there is, or no cluster answers at RAY_ADDRESS.
    """
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray

    if ray.is_initialized():
        return
    parameters = count_parameters(config.student.model)
    own, address = embedded(), os.environ.get("RAY_ADDRESS") or "auto"
    if own:
        check_fits(config, {"memory": machine_memory()}, parameters)
    else:
        _check_address(address)
    handler = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": _environment(config)},
        "log_to_driver": bool(os.environ.get("ORPO_RAY_DEBUG")),
        "logging_level": logging.ERROR,
    }
    try:
        if own:
            with _on_loopback():
                ray.init(**options, **_own_cluster(config))
        else:
            ray.init(**options, address=address)
    except ConnectionError as error:
        raise InputError(f"RAY_ADDRESS: no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process without a word to the controller
    _no_progress_bars()
    if not os.environ.get(AUTOSCALED):
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        # A run that may go on with fewer may also begin so.
        least = config.smallest
        check_fits(least, {"CPU": there.get("CPU", 0.0), "GPU": there.get("GPU", 0.0)}, parameters)
        check_places(least, _shape(ray.nodes()))  # type: ignore[no-untyped-call]


def disconnect() -> None:
    """Leave Ray; a cluster of our own ends, with every process that it started."""
    import ray

    if not ray.is_initialized():
        return
    started = _descendants() if embedded() else {}
    ray.shutdown()
    _end(started)


def _shape(nodes: list[dict[str, Any]]) -> ClusterShape:
    """The cluster as Ray tells it; memory is not asked of Ray, so it is left out."""
    alive = [node for node in nodes if node["Alive"]]
    groups = (
        NodeGroup(
            node["NodeManagerAddress"],
            1,
            node["Resources"].get("CPU", 0.0),
            int(node["Resources"].get("GPU", 0)),
            labels=node.get("Labels", {}),
        )
        for node in alive
    )
    return ClusterShape("the cluster", tuple(groups))


def _own_cluster(config: RunConfig) -> dict[str, Any]:
    _before.clear()
    _before.update(_descendants())
    # The stream's blocks are small; Ray's own default, a third of the memory, is better left to engines and workers.
    store = 400 << 20 if machine_memory() < 64 * GIB else 4 * GIB
    return {
        "address": "local",
        "num_cpus": logical_cpus(config, os.cpu_count() or 1),
        "include_dashboard": False,
        "object_store_memory": store,
    }


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A cluster that is started herein listens to this machine only, since nobody else is to be a part of it.

    Ray turns a loopback address that it is given into another, but on Macs, whose firewalls ask people about each
    listener; this is its own switch for that.
    """
    from ray._private import ray_constants

    switch = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(switch)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[switch] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before[1]


def _check_address(address: str) -> None:
    """Ray itself tries an address where nobody answers for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise InputError(f"RAY_ADDRESS: no Ray cluster answers at {address}: {error}") from None


def _environment(config: RunConfig) -> dict[str, str]:
    """Environment of every worker. A job that was submitted with settings of its own keeps them."""
    variables = {"OMP_NUM_THREADS": str(config.resources.threads), "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    variables |= {RUN_VARIABLE: config.name, DIRECTORY_VARIABLE: str(Path(config.storage.path).resolve() / config.name)}
    if not config.resources.trainer_gpus:
        variables["DS_ACCELERATOR"] = "cpu"
    if embedded():
        # DeepSpeed compiles with ninja, which lies beside the interpreter and is looked for on the PATH, whether or not
        # the environment is activated. Nodes of another cluster have a PATH of their own.
        variables["PATH"] = _path_with(Path(sys.executable).parent)
        # vLLM looks for nodes by the address that it finds for itself, which is to be the one that Ray has.
        variables["VLLM_HOST_IP"] = "127.0.0.1"
    job = json.loads(os.environ.get(_JOB, "{}"))
    taken = (job.get("runtime_env") or {}).get("env_vars") or {}
    return {name: value for name, value in variables.items() if name not in taken}


def _path_with(directory: Path) -> str:
    """The PATH with `directory` in front of it, unless it is on it."""
    path = os.environ.get("PATH", os.defpath)
    return path if str(directory) in path.split(os.pathsep) else f"{directory}{os.pathsep}{path}"


def _no_progress_bars() -> None:
    """Progress is the report's to show."""
    from ray.data import DataContext

    data = DataContext.get_current()
    data.enable_progress_bars = False
    data.print_on_execution_start = False


def _descendants() -> dict[int, Any]:
    import psutil

    return {process.pid: process for process in psutil.Process().children(recursive=True)}


def _end(started: dict[int, Any]) -> None:
    """Wait for processes to end by themselves, then end them."""
    import psutil

    def living() -> list[Any]:
        return [process for pid, process in started.items() if pid not in _before and _lives(process)]

    def _lives(process: Any) -> bool:
        try:
            return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    end = time.monotonic() + _END_S
    while living() and time.monotonic() < end:
        time.sleep(0.1)
    for process in living():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
