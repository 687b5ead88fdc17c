"""Who may use a served teacher: the key, when it is asked for, and what is refused without one."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.errors import InputError
from orpo_ray.teacher.key import served_key
from orpo_ray.teacher.key_gate import KeyGate, admits
from orpo_ray.teacher.keyed_ingress import KeyedIngress
from orpo_ray.teacher.serving import TeacherEndpoint, usage

DIGEST = hashlib.sha256(b"the key").hexdigest()


def a_config(**serve: Any) -> RunConfig:
    return parse_config(
        {"task": {"name": "arithmetic"}, "student": {"model": "s"}, "teacher": {"model": "t", "serve": serve}}
    )


def test_on_loopback_no_key_is_asked_for() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.53"):
        assert served_key(a_config(host=host), own_clients=True) is None
        assert served_key(a_config(host=host), own_clients=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "teacher.example.com"])
def test_off_loopback_a_run_makes_a_key_up_and_a_person_must_say(host: str) -> None:
    first, second = (served_key(a_config(host=host), own_clients=True) for _ in range(2))
    assert first != second
    assert len(first or "") >= 40
    with pytest.raises(InputError, match=rf"teacher\.serve\.host: {host} is reached by others.*--insecure"):
        served_key(a_config(host=host), own_clients=False)
    assert served_key(a_config(host=host, insecure=True), own_clients=False) is None
    # What nobody else is to use needs no permission to be open.
    assert served_key(a_config(host=host, insecure=True), own_clients=True) is not None


def test_the_address_that_counts_is_the_one_that_serve_has() -> None:
    with pytest.raises(InputError, match=r"10\.0\.0\.7 is reached by others"):
        served_key(a_config(), "10.0.0.7", own_clients=False)


def test_a_key_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = a_config(host="0.0.0.0", api_key_env="TEACHER_KEY")
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    for own in (True, False):
        with pytest.raises(InputError, match="the environment variable TEACHER_KEY is not set"):
            served_key(config, own_clients=own)
    monkeypatch.setenv("TEACHER_KEY", "mine\n")
    assert served_key(config, own_clients=False) == served_key(config, own_clients=True) == "mine"


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ([(b"authorization", b"Bearer the key")], True),
        ([(b"host", b"x"), (b"Authorization", b"bearer the key ")], True),
        ([(b"authorization", b"Bearer another")], False),
        ([(b"authorization", b"Bearer ")], False),
        ([(b"authorization", b"the key")], False),
        ([(b"authorization", b"Bearer " + DIGEST.encode())], False),
        ([], False),
    ],
)
def test_only_the_key_is_admitted(headers: list[tuple[bytes, bytes]], admitted: bool) -> None:
    assert admits(headers, DIGEST) is admitted


def test_nothing_without_the_key_passes_the_gate() -> None:
    """But the server's own start and end."""
    passed: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    def sent(scope: dict[str, Any]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        asyncio.run(KeyGate(app, DIGEST)(scope, None, send))
        return messages

    start, body = sent({"type": "http", "headers": []})
    assert (start["status"], json.loads(body["body"])["error"]["code"]) == (401, "invalid_api_key")
    assert sent({"type": "websocket", "headers": []}) == [{"type": "websocket.close", "code": 1008}]
    assert passed == []
    for scope in ({"type": "http", "headers": [(b"authorization", b"Bearer the key")]}, {"type": "lifespan"}):
        assert sent(scope) == []
    assert passed == ["http", "lifespan"]


def test_serve_takes_the_ingress() -> None:
    """It looks at a class's methods before it makes an ingress of it."""
    from ray.llm._internal.serve.core.ingress.ingress import make_fastapi_ingress

    assert issubclass(make_fastapi_ingress(KeyedIngress), KeyedIngress)


def test_a_key_is_never_printed() -> None:
    endpoint = TeacherEndpoint("http://10.0.0.7:8000/v1", "t", None, "sk-planted")
    assert "sk-planted" not in repr(endpoint)
    said = usage(endpoint, "TEACHER_KEY")
    assert "sk-planted" not in said
    assert "$TEACHER_KEY" in said


def test_the_command_refuses_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orpo_ray.cli import execute
    from orpo_ray.phases import cluster

    monkeypatch.setattr(cluster, "connect", lambda config: pytest.fail("Ray was started"))
    with pytest.raises(InputError, match="--insecure"):
        execute.serve_until_stopped(a_config(host="0.0.0.0"))
    elsewhere = {"backend": "openai", "model": "m", "base_url": "https://host/v1"}
    config = parse_config({"task": {"name": "arithmetic"}, "student": {"model": "s"}, "teacher": elsewhere})
    with pytest.raises(InputError, match=r"teacher\.backend: is openai, so there is nothing to serve"):
        execute.serve_until_stopped(config)
