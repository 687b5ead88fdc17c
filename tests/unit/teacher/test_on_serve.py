"""The port that an application on Serve listens on, and what is said of one that is not up; no cluster."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from orpo_ray.errors import InputError
from orpo_ray.teacher.on_serve import _usable_port, state


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port: 127.0.0.1:{port} cannot be used \(Address already"):
            _usable_port("127.0.0.1", port, "--port")
    assert _usable_port("127.0.0.1", port, "--port") == port
    assert _usable_port("127.0.0.1", 0, "--port") > 1023


def serve_status(**applications: Any) -> Any:
    """As `serve.status` gives it: the head's proxy, and another node's that is of no concern."""
    starting, gone = SimpleNamespace(value="STARTING"), SimpleNamespace(value="UNHEALTHY")
    return SimpleNamespace(proxies={"head": starting, "other": gone}, applications=applications)


def test_it_says_what_is_missing() -> None:
    assert state(serve_status(), "app", "head") == "HTTP proxy STARTING; no application yet"
    assert state(serve_status(), "app", "lost").startswith("HTTP proxy none")
    replica = SimpleNamespace(replica_states={"STARTING": 1, "RUNNING": 2}, message="waiting for 1 CPU")
    application = SimpleNamespace(
        status="DEPLOYING",
        message="",
        deployments={"teacher": replica, "ingress": SimpleNamespace(replica_states={}, message="")},
    )
    assert state(serve_status(app=application), "app", "head") == (
        "HTTP proxy STARTING; application DEPLOYING; teacher, replicas: 1 STARTING, 2 RUNNING. waiting for 1 CPU; "
        "ingress, replicas: none."
    )
