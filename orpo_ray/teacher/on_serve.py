"""What any application on Ray Serve needs: Serve itself started, its state told, its end."""

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from orpo_ray.errors import InputError, OrpoRayError, WaitTimeout

if TYPE_CHECKING:
    from ray.serve.schema import ServeStatus

NODE_LABEL = "ray.io/node-id"
"""Ray's own label of every node."""
_POLL_S = 0.2


class ServeError(OrpoRayError):
    """Ray Serve did not start; the message says what it said."""


def start_serve(host: str, port: int, option: str, limit_s: float) -> tuple[str, int]:
    """Start Serve where it is not running; returns the host and port that its proxy on the head node listens on.

    Args:
        port: 0 for a free one.
        option: what the port is called, for the message.
        limit_s: how long the head node is waited for, seconds.

    Raises:
        InputError: the port is taken, or `host` is no address of the head node's.
        ServeError: Serve did not start.
        WaitTimeout: the head node did not say whether the port is free.
    """
    from ray import serve
    from ray.exceptions import RayError

    running = _running_http_options()
    if running is not None:
        host, port = running
    else:
        port = _head_port(host, port, option, limit_s)
        # Serve kills a proxy that is not up within 5 s, and starts it again, which a busy machine never catches up with.
        patient = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": host, "port": port},
                logging_config={"log_level": "ERROR", "enable_access_log": False},
                controller_options={"runtime_env": {"env_vars": patient}},
            )
        except (RayError, TimeoutError) as error:
            # Where it gave up waiting for the proxy, that still comes, and `standing` looks at it.
            if _running_http_options() is None:
                raise ServeError(f"Ray Serve did not start: {error}") from error
    return host, port


def _running_http_options() -> tuple[str, int] | None:
    """Host and port of a Serve that runs already, as after a killed run on a long-lived cluster: it keeps its own."""
    from ray.serve.context import _get_global_client  # no public call tells the port

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host or "127.0.0.1", client.http_config.port)


@dataclass(frozen=True)
class Standing:
    """How an application does: whether it is up, whether it failed for good, and what Serve says about it."""

    up: bool
    failed: bool
    text: str


def standing(app: str) -> Standing:
    """Of the application `app`: it is up once its replicas and the head node's proxy are."""
    from ray import serve

    status, head = serve.status(), head_node()["NodeID"]
    application = status.applications.get(app)
    running = application is not None and application.status == "RUNNING" and status.proxies.get(head) == "HEALTHY"
    failed = application is not None and application.status == "DEPLOY_FAILED"
    return Standing(running, failed, state(status, app, head))


def wait_until_routed(url: str, end: float, limit: str) -> None:
    """Until `url`, of an application that is up, answers, or the monotonic clock reads `end`; nothing off the head node.

    HAProxy hears of an application a moment after it is up, and answers for itself until then.

    Raises:
        WaitTimeout: with `limit` in front of its words.
    """
    if not on_head():
        return
    while not _routed(url):
        if time.monotonic() >= end:
            raise WaitTimeout(f"{limit}; waited for Serve to answer at {url}")
        time.sleep(_POLL_S)


def _routed(url: str) -> bool:
    try:
        answer = httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code in (httpx.codes.OK, httpx.codes.UNAUTHORIZED)


def stop_application(app: str) -> None:
    """Take an application down, and Serve with it where it serves nothing else."""
    from ray import serve

    if set(serve.status().applications) - {app}:
        serve.delete(app)
    else:
        serve.shutdown()  # type: ignore[no-untyped-call]


def state(status: "ServeStatus", app: str, head: str) -> str:
    """The head node's proxy and an application's replicas by state, and what Serve says about them."""
    parts = [f"HTTP proxy {status.proxies[head].value}" if head in status.proxies else "HTTP proxy none"]
    application = status.applications.get(app)
    if application is None:
        return "; ".join([*parts, "no application yet"])
    parts.append(f"application {getattr(application.status, 'value', application.status)}")
    for name, deployment in application.deployments.items():
        states = [f"{count} {getattr(state, 'value', state)}" for state, count in deployment.replica_states.items()]
        parts.append(f"{name}, replicas: {', '.join(states) or 'none'}. {deployment.message}".strip())
    return "; ".join([*parts, application.message] if application.message else parts)


def _usable_port(host: str, port: int, option: str) -> int:
    """`port`, or a free one for 0.

    Raises:
        InputError: it is taken, or `host` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"{option}: {host}:{port} cannot be used ({error.strerror}); take another, or 0 for a free one"
            ) from None
        return int(probe.getsockname()[1])


def _head_port(host: str, port: int, option: str, limit_s: float) -> int:
    """As `_usable_port`, asked on the head node, where Serve's proxy listens: the driver of a job may be on another."""
    import ray
    from ray.exceptions import GetTimeoutError

    if on_head():
        return _usable_port(host, port, option)
    there: Any = ray.remote(num_cpus=0)(_usable_port)
    asked = there.options(label_selector={NODE_LABEL: head_node()["NodeID"]}).remote(host, port, option)
    try:
        return int(ray.get(asked, timeout=limit_s))
    except GetTimeoutError:
        raise WaitTimeout(
            f"{option}: waited {limit_s:g} s for the head node to look for the port on {host}; no worker of Ray started there"
        ) from None
    except InputError as error:  # with Ray's own traceback round it
        raise getattr(error, "cause", error) from None


def on_head() -> bool:
    """Whether this process is on the head node's machine."""
    import ray

    return bool(ray.get_runtime_context().get_node_id() == head_node()["NodeID"])


def head_node() -> dict[str, Any]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next(node for node in nodes if "node:__internal_head__" in node["Resources"])
