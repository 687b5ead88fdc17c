"""Serves the teacher on Ray Serve for as long as it is needed, and takes it down."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orpo_ray.config import RunConfig
from orpo_ray.config.secrecy import is_loopback_host
from orpo_ray.errors import TeacherError, WaitTimeout
from orpo_ray.teacher.app import served_name, teacher_app
from orpo_ray.teacher.key import served_key
from orpo_ray.teacher.on_serve import ServeError, head_node, standing, start_serve, stop_application, wait_until_routed

APP = "orpo-ray-teacher"
_POLL_S = 0.5
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
    try:
        host, port = start_serve(config.teacher.serve.host, config.teacher.serve.port, "teacher.serve.port", limit_s)
    except ServeError as error:
        raise TeacherError(f"teacher: {error}") from error
    key = served_key(config, host, own_clients=own_clients)
    others = set(serve.status().applications) - {APP}
    route = f"/{APP}" if others else ""
    target = serve.RunTarget(teacher_app(config, key), name=APP, route_prefix=route or "/")
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    head = head_node()
    _wait_until_running(end, limit_s)
    reached = head["NodeManagerAddress"] if host in _EVERYWHERE else host
    address = f"[{reached}]" if ":" in reached else reached
    base_url = f"http://{address}:{port}{route}/v1"
    wait_until_routed(f"{base_url}/models", end, f"limits.start_s: the teacher was not up within {limit_s:g} s")
    return TeacherEndpoint(
        base_url,
        served_name(config.teacher.model),
        # A head that offers no CPU could never take the clients that a loopback address binds to it.
        head["NodeID"] if is_loopback_host(host) else None,
        key,
    )


def stop_teacher() -> None:
    """Take the teacher down, and Serve with it where it serves nothing else."""
    stop_application(APP)


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


def _wait_until_running(end: float, limit_s: float) -> None:
    """Until replicas and the head node's proxy are up, or the monotonic clock reads `end`."""
    while True:
        now = standing(APP)
        if now.failed:
            raise TeacherError(f"teacher: Ray Serve could not start it: {now.text}")
        if now.up:
            return
        if time.monotonic() >= end:
            raise WaitTimeout(f"limits.start_s: the teacher was not up within {limit_s:g} s; waited for {now.text}")
        time.sleep(_POLL_S)
