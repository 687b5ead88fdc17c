"""The control plane as a Ray Serve application."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_ray.client import Placement
from orpo_ray.client.address import is_loopback
from orpo_ray.config.secrecy import is_loopback_host, variable_name
from orpo_ray.errors import InputError, WaitTimeout
from orpo_ray.teacher.key_gate import digest
from orpo_ray.teacher.on_serve import NODE_LABEL, ServeError, head_node, standing, start_serve, wait_until_routed

if TYPE_CHECKING:
    from ray.serve.deployment import Application

APP = "orpo-ray-service"
TOKEN_VARIABLE = "ORPO_RAY_SERVICE_TOKEN"
_START_S = 300.0
_POLL_S = 0.2
# Requests at a time, event streams among them, and waiting ones, before Serve answers 503.
_AT_A_TIME, _WAITING = 256, 256
_NICENESS = 19


def service_token(name: str = TOKEN_VARIABLE, *, insecure: bool = False) -> str | None:
    """The token that the service asks for, of the environment variable `name`; None where it is to ask for none.

    Whoever may submit a run has code of his choice executed (`task.name` is an import path), on loopback too.

    Raises:
        InputError: the variable is not set, and nobody has said `--insecure`; or it holds what is no token.
    """
    variable_name(name)
    token = os.environ.get(name, "").strip()
    if token and (len(token) < 16 or not token.isascii() or not token.isprintable()):
        raise InputError(
            f"{name}: holds no token of at least 16 plain characters; make one with `openssl rand -hex 32`"
        )
    if not token and not insecure:
        raise InputError(
            f"{name}: is not set, and whoever reaches the service could run code on the cluster; put a token into it, as "
            f"`export {name}=$(openssl rand -hex 32)`, or say --insecure"
        )
    return token or None


def application(args: dict[str, Any]) -> "Application":
    """The application, for Serve's own configuration too: `import_path: orpo_ray.service.serving:application`.

    Args:
        args: `storage`, an absolute directory that its replica sees; `address` of the dashboard, the cluster's own where
            left out; `labels` of the node that it works on; `drivers`, where drivers of runs work, as `Placement` has it
            (`cpus`, `resources`, `labels`); `token_env`, the variable that holds the token.

    Raises:
        InputError: as `service_token`, or the arguments are others.
    """
    unknown = sorted(set(args) - {"storage", "address", "labels", "drivers", "token_env"})
    if unknown or "storage" not in args:
        raise InputError(
            f"args: {', '.join(unknown) or 'no storage'}; give storage, and address, labels, drivers, token_env at will"
        )
    token = service_token(args.get("token_env", TOKEN_VARIABLE))
    drivers = Placement(**args["drivers"]) if "drivers" in args else None
    return deployed(Path(args["storage"]), args.get("address") or dashboard_url(), token, drivers, args.get("labels"))


def deployed(
    storage: Path,
    address: str,
    token: str | None,
    drivers: Placement | None = None,
    labels: Mapping[str, str] | None = None,
) -> "Application":
    """The application, not yet running.

    Args:
        storage: where runs lie.
        address: of the cluster's dashboard.
        drivers: where drivers of runs work; on the head where None.
        labels: of the node that the application works on; the head's where only that reaches `address`.
    """
    from ray import serve

    if not storage.is_absolute():
        raise InputError(f"storage: {storage} is relative; give an absolute path that every node of the cluster sees")

    class ControlPlane:
        """One replica: what it knows it reads from the storage, so another one can take its place at any time."""

        def __init__(self, storage: str, address: str, key_sha256: str | None, drivers: Placement | None) -> None:
            self._arguments = (Path(storage), address, key_sha256, drivers)

        def __serve_build_asgi_app__(self) -> Any:
            """Serve asks for the application by this, on the replica."""
            from orpo_ray.service.app import create_app
            from orpo_ray.service.runs import ClusterJobs, Runs

            _yield_to_runs()
            storage, address, key_sha256, drivers = self._arguments
            storage.mkdir(parents=True, exist_ok=True)
            return create_app(Runs(storage, ClusterJobs(address, None, drivers)), key_sha256)

    actor: dict[str, Any] = {"num_cpus": 0}
    if labels:
        actor["label_selector"] = dict(labels)
    elif is_loopback(address):  # nobody else reaches the dashboard than a process of the head's machine
        actor["label_selector"] = {NODE_LABEL: head_node()["NodeID"]}
    deployment = serve.deployment(
        num_replicas=1,
        ray_actor_options=actor,
        max_ongoing_requests=_AT_A_TIME,
        max_queued_requests=_WAITING,
        graceful_shutdown_timeout_s=2,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_timeout_s=60,
    )(serve.ingress()(ControlPlane))
    return deployment.bind(str(storage), address, None if token is None else digest(token), drivers)


def _yield_to_runs() -> None:
    """The work on a run goes before watching it, where both want the same core: Ray's workers have niceness 15."""
    # Linux keeps it for each thread, and gives it to those that a thread starts; one of the others may start one meanwhile.
    done: set[str] = set()
    while new := set(os.listdir("/proc/self/task")) - done:
        for thread in new:
            with suppress(OSError):  # it has just ended, or nothing may be changed here
                os.setpriority(os.PRIO_PROCESS, int(thread), _NICENESS)
        done |= new


def start_service(storage: Path, token: str | None, host: str, port: int, drivers: Placement | None = None) -> str:
    """Serve the control plane; its URL. Ray must be connected to; `stop_application(APP)` ends it.

    Raises:
        InputError: the port is taken.
        ServeError, WaitTimeout: it did not start.
    """
    from ray import serve

    application = deployed(storage, dashboard_url(), token, drivers)
    host, port = start_serve(host, port, "--port", _START_S)
    serve.run_many(
        [serve.RunTarget(application, name=APP, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    end = time.monotonic() + _START_S
    while not (now := standing(APP)).up:
        if now.failed:
            raise ServeError(f"Ray Serve could not start the service: {now.text}")
        if time.monotonic() > end:
            raise WaitTimeout(f"the service was not up within {_START_S:g} s; waited for {now.text}")
        time.sleep(_POLL_S)
    reached = "127.0.0.1" if host in ("0.0.0.0", "::") or is_loopback_host(host) else host
    url = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
    wait_until_routed(f"{url}/healthz", end, f"the service was not up within {_START_S:g} s")
    return url


def dashboard_url() -> str:
    """Of the cluster that this process is connected to."""
    from ray._private.services import get_webui_url_from_internal_kv  # no public call tells it to a worker

    found: str | None = get_webui_url_from_internal_kv()  # type: ignore[no-untyped-call]
    if not found:
        raise InputError("--address: this cluster has no dashboard, whose Jobs API runs are submitted to")
    return found if "://" in found else f"http://{found}"
