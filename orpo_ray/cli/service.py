"""`orpo-ray serve`: the control plane, until Ctrl-C."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orpo_ray.cli.execute import console_on
from orpo_ray.cli.library_output import library_output
from orpo_ray.client import Placement
from orpo_ray.config.secrecy import is_loopback_host
from orpo_ray.controller.stopping import StopSignals
from orpo_ray.errors import InputError
from orpo_ray.phases.cluster import embedded


def serve_runs(
    storage: Path, host: str, port: int, token_env: str, drivers: Placement | None, *, insecure: bool
) -> None:
    """Serve the runs in `storage`, on the cluster that is there or on one of its own, and say how to reach them."""
    from orpo_ray.service.serving import APP, service_token, start_service

    token = service_token(token_env, insecure=insecure)  # refused before Ray is started
    console = console_on(sys.stdout)
    directory = _directory(storage)
    with StopSignals(), library_output(Path(os.devnull)), ExitStack() as stack:
        stack.enter_context(_own_cluster() if embedded() else _cluster())
        # Only now: importing Ray reads what the cluster's context has put into the environment.
        from orpo_ray.teacher.on_serve import stop_application

        stack.callback(stop_application, APP)
        url = start_service(directory, token, host, port, drivers)
        if token is None:
            console.print(
                f"WARNING: {url} asks for no token: whoever reaches it "
                f"{'(from this machine) ' if is_loopback_host(host) else ''}runs code on the cluster",
                style="bold red",
            )
        header = f'-H "Authorization: Bearer ${token_env}" ' if token else ""
        console.print(
            f"runs in {directory} at {url}  (Ctrl-C stops the service, and a cluster of its own with it)\n"
            f"  the page: {url}/\n"
            f"  curl {header}{url}/v1/runs\n"
            f'  orpo_ray.Client("{url}"' + (f', os.environ["{token_env}"])' if token else ")"),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            console.print("stopping the service", highlight=False)


def _directory(storage: Path) -> Path:
    """The storage, made where it is missing.

    Raises:
        InputError: it cannot be made or written.
    """
    directory = storage.resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--storage: {directory} cannot be made ({error.strerror}); give a directory that can"
        ) from None
    if not os.access(directory, os.W_OK):
        raise InputError(f"--storage: {directory} cannot be written; give a directory that can")
    return directory


@contextmanager
def _own_cluster() -> Iterator[None]:
    """A cluster for this service alone, as `Client.local` has it; runs that work on it end with it."""
    from orpo_ray.client.local import LocalCluster

    cluster = LocalCluster(haproxy=True)
    try:
        os.environ |= cluster.environment
        with _cluster():
            yield
    finally:
        cluster.close()


@contextmanager
def _cluster() -> Iterator[None]:
    """The cluster at RAY_ADDRESS, or that this process is a job of."""
    import logging

    import ray

    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise InputError(f"RAY_ADDRESS: no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from None
    try:
        yield
    finally:
        ray.shutdown()
