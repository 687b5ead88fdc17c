"""Serves the teacher on Ray Serve for as long as it is needed, and takes it down."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.errors import InputError, TeacherError, WaitTimeout
from orpo_ray.teacher.app import served_name, teacher_app

APP = "orpo-ray-teacher"
_POLL_S = 0.5
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class TeacherEndpoint:
    """A served teacher's OpenAI API.

    Attributes:
        base_url: as the `openai` client takes it, `http://host:port/v1`.
        model: the model's name in requests.
        node: id of the Ray node that alone reaches a loopback `base_url`; None where every node does.
    """

    base_url: str
    model: str
    node: str | None


@contextmanager
def serve_teacher(config: RunConfig) -> Iterator[TeacherEndpoint]:
    """Serve `teacher.model` while the context is open. Ray must be running.

    Raises:
        InputError: the port is taken.
        TeacherError: the application failed to start; says what Serve says.
        WaitTimeout: it was not up within `limits.start_s`; says what was missing.
    """
    try:
        yield start_teacher(config)
    finally:
        stop_teacher()


def start_teacher(config: RunConfig) -> TeacherEndpoint:
    """As `serve_teacher`; the caller sees to `stop_teacher`, whatever happens."""
    from ray import serve

    assert config.teacher.model is not None, "checked when the configuration is read"
    host, port = _start_serve(config.teacher.serve.host, config.teacher.serve.port)
    others = set(serve.status().applications) - {APP}
    route = f"/{APP}" if others else ""
    target = serve.RunTarget(teacher_app(config), name=APP, route_prefix=route or "/")
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    _wait_until_running(config.limits.start_s)
    # A head that offers no CPU could never take the clients that a loopback address binds to it.
    node = _head()["NodeID"] if host in _LOOPBACK else None
    return TeacherEndpoint(f"http://{host}:{port}{route}/v1", served_name(config.teacher.model), node)


def stop_teacher() -> None:
    """Take the teacher down, and Serve with it where it serves nothing else."""
    from ray import serve

    applications = serve.status().applications
    if set(applications) - {APP}:
        serve.delete(APP)
    else:
        serve.shutdown()  # type: ignore[no-untyped-call]


def usage(endpoint: TeacherEndpoint) -> str:
    """What a person needs to talk to a served teacher."""
    body = f'{{"model": "{endpoint.model}", "messages": [{{"role": "user", "content": "What is 2 + 3?"}}]}}'
    return (
        f"teacher {endpoint.model} at {endpoint.base_url}  (Ctrl-C stops it)\n"
        f"  curl {endpoint.base_url}/chat/completions -H 'Content-Type: application/json' -d '{body}'\n"
        f'  openai.OpenAI(base_url="{endpoint.base_url}", api_key="none")'
    )


def _start_serve(host: str, port: int) -> tuple[str, int]:
    """Start Serve where it is not running; returns the address that clients on the head node use."""
    from ray import serve

    running = _running_http_options()
    if running is not None:
        host, port = running
    else:
        port = port or _free_port()
        _check_port(host, port)
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
    return (_head()["NodeManagerAddress"] if host in ("0.0.0.0", "::") else host), port


def _running_http_options() -> tuple[str, int] | None:
    """Host and port of a Serve that runs already, as after a killed run on a long-lived cluster: it keeps its own."""
    from ray.serve.context import _get_global_client  # no public call tells the port

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host or "127.0.0.1", client.http_config.port)


def _wait_until_running(limit_s: float) -> None:
    from ray import serve

    end = time.monotonic() + limit_s
    application: Any = None
    while time.monotonic() < end:
        application = serve.status().applications.get(APP)
        if application is not None:
            if application.status == "RUNNING":
                return
            if application.status == "DEPLOY_FAILED":
                raise TeacherError(f"teacher: Ray Serve could not start it: {_messages(application)}")
        time.sleep(_POLL_S)
    raise WaitTimeout(
        f"limits.start_s: the teacher was not up within {limit_s:g} s; waited for "
        f"{_messages(application) if application else 'Ray Serve to take the application'}"
    )


def _messages(application: Any) -> str:
    """Each deployment's replicas by state, and what Serve says about it."""
    parts = []
    for name, deployment in application.deployments.items():
        states = ", ".join(f"{count} {state}" for state, count in deployment.replica_states.items()) or "none"
        parts.append(f"{name} (replicas: {states}) {deployment.message}".strip())
    return "; ".join(parts) or application.message


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"teacher.serve.port: {host}:{port} cannot be used ({error.strerror}); take another, or 0 for a free one"
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _head() -> dict[str, Any]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next(node for node in nodes if "node:__internal_head__" in node["Resources"])
