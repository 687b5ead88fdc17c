"""Serves the teacher on Ray Serve for as long as it is needed, and takes it down."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orpo_ray.config import RunConfig
from orpo_ray.config.secrecy import is_loopback_host
from orpo_ray.errors import InputError, TeacherError, WaitTimeout
from orpo_ray.teacher.app import served_name, teacher_app
from orpo_ray.teacher.key import served_key

if TYPE_CHECKING:
    from ray.serve.schema import ServeStatus

APP = "orpo-ray-teacher"
_POLL_S = 0.5
# Ray's own label of every node.
NODE_LABEL = "ray.io/node-id"
_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class TeacherEndpoint:
    """A served teacher's OpenAI API.

    Attributes:
        base_url: as the `openai` client takes it, `http://host:port/v1`.
        model: the model's name in requests.
        node: id of the Ray node that alone reaches a loopback `base_url`; None where every node does.
        key: that the API asks for; None where it asks for none.
    """

    base_url: str
    model: str
    node: str | None
    key: str | None = field(default=None, repr=False)


@contextmanager
def serve_teacher(config: RunConfig, *, own_clients: bool = True) -> Iterator[TeacherEndpoint]:
    """Serve `teacher.model` while the context is open. Ray must be running.

    Args:
        own_clients: only the caller's own processes are to use it; as for `served_key`.

    Raises:
        InputError: the port is taken; or as `served_key`.
        TeacherError: the application failed to start; says what Serve says.
        WaitTimeout: it was not up within `limits.start_s`; says what was missing.
    """
    try:
        yield start_teacher(config, own_clients=own_clients)
    finally:
        stop_teacher()


def start_teacher(config: RunConfig, *, own_clients: bool = True) -> TeacherEndpoint:
    """As `serve_teacher`; the caller sees to `stop_teacher`, whatever happens."""
    from ray import serve

    assert config.teacher.model is not None, "checked when the configuration is read"
    served_key(config, own_clients=own_clients)  # refused before anything starts
    limit_s = config.limits.start_s
    end = time.monotonic() + limit_s
    # A Serve that runs already keeps the address it has.
    host, port = _start_serve(config.teacher.serve.host, config.teacher.serve.port)
    key = served_key(config, host, own_clients=own_clients)
    others = set(serve.status().applications) - {APP}
    route = f"/{APP}" if others else ""
    target = serve.RunTarget(teacher_app(config, key), name=APP, route_prefix=route or "/")
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    head = _head()
    _wait_until_running(head["NodeID"], end, limit_s)
    reached = head["NodeManagerAddress"] if host in _EVERYWHERE else host
    address = f"[{reached}]" if ":" in reached else reached
    return TeacherEndpoint(
        f"http://{address}:{port}{route}/v1",
        served_name(config.teacher.model),
        # A head that offers no CPU could never take the clients that a loopback address binds to it.
        head["NodeID"] if is_loopback_host(host) else None,
        key,
    )


def stop_teacher() -> None:
    """Take the teacher down, and Serve with it where it serves nothing else."""
    from ray import serve

    applications = serve.status().applications
    if set(applications) - {APP}:
        serve.delete(APP)
    else:
        serve.shutdown()  # type: ignore[no-untyped-call]


def usage(endpoint: TeacherEndpoint, key_env: str | None) -> str:
    """What a person needs to talk to a served teacher.

    Args:
        key_env: the environment variable that holds its key, which is not printed.
    """
    body = f'{{"model": "{endpoint.model}", "messages": [{{"role": "user", "content": "What is 2 + 3?"}}]}}'
    header = f'-H "Authorization: Bearer ${key_env}" ' if endpoint.key else ""
    key = f'os.environ["{key_env}"]' if endpoint.key else '"none"'
    return (
        f"teacher {endpoint.model} at {endpoint.base_url}  (Ctrl-C stops it)\n"
        f"  curl {endpoint.base_url}/chat/completions {header}-H 'Content-Type: application/json' -d '{body}'\n"
        f'  openai.OpenAI(base_url="{endpoint.base_url}", api_key={key})'
    )


def _start_serve(host: str, port: int) -> tuple[str, int]:
    """Start Serve where it is not running; returns the host and port that its proxy on the head node listens on."""
    from ray import serve
    from ray.exceptions import RayError

    running = _running_http_options()
    if running is not None:
        host, port = running
    else:
        port = _head_port(host, port)
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
            # Where it gave up waiting for the proxy, that still comes, and _wait_until_running looks at it.
            if _running_http_options() is None:
                raise TeacherError(f"teacher: Ray Serve did not start: {error}") from error
    return host, port


def _running_http_options() -> tuple[str, int] | None:
    """Host and port of a Serve that runs already, as after a killed run on a long-lived cluster: it keeps its own."""
    from ray.serve.context import _get_global_client  # no public call tells the port

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host or "127.0.0.1", client.http_config.port)


def _wait_until_running(head: str, end: float, limit_s: float) -> None:
    """Until replicas and the head node's proxy are up, or the monotonic clock reads `end`."""
    from ray import serve

    while True:
        status = serve.status()
        application = status.applications.get(APP)
        if application is not None and application.status == "DEPLOY_FAILED":
            raise TeacherError(f"teacher: Ray Serve could not start it: {_state(status, head)}")
        if application is not None and application.status == "RUNNING" and status.proxies.get(head) == "HEALTHY":
            return
        if time.monotonic() >= end:
            raise WaitTimeout(
                f"limits.start_s: the teacher was not up within {limit_s:g} s; waited for {_state(status, head)}"
            )
        time.sleep(_POLL_S)


def _state(status: "ServeStatus", head: str) -> str:
    """The head node's proxy and the replicas by state, and what Serve says about them."""
    parts = [f"HTTP proxy {status.proxies[head].value}" if head in status.proxies else "HTTP proxy none"]
    application = status.applications.get(APP)
    if application is None:
        return "; ".join([*parts, "no application yet"])
    parts.append(f"application {getattr(application.status, 'value', application.status)}")
    for name, deployment in application.deployments.items():
        states = [f"{count} {getattr(state, 'value', state)}" for state, count in deployment.replica_states.items()]
        parts.append(f"{name}, replicas: {', '.join(states) or 'none'}. {deployment.message}".strip())
    return "; ".join([*parts, application.message] if application.message else parts)


def _usable_port(host: str, port: int) -> int:
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
                f"teacher.serve.port: {host}:{port} cannot be used ({error.strerror}); take another, or 0 for a free one"
            ) from None
        return int(probe.getsockname()[1])


def _head_port(host: str, port: int) -> int:
    """As `_usable_port`, asked on the head node, where Serve's proxy listens: the driver of a job may be on another."""
    import ray

    head = _head()["NodeID"]
    if ray.get_runtime_context().get_node_id() == head:
        return _usable_port(host, port)
    there: Any = ray.remote(num_cpus=0)(_usable_port)
    try:
        return int(ray.get(there.options(label_selector={NODE_LABEL: head}).remote(host, port)))
    except InputError as error:  # with Ray's own traceback round it
        raise getattr(error, "cause", error) from None


def _head() -> dict[str, Any]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next(node for node in nodes if "node:__internal_head__" in node["Resources"])
