"""HAProxy in front of Serve answers for itself until it has heard of an application."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from orpo_ray.errors import WaitTimeout
from orpo_ray.teacher import on_serve


@contextmanager
def answering(statuses: list[int]) -> Iterator[str]:
    """A server that answers with one after another, and goes on with the last one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/healthz"
        server.shutdown()


@pytest.mark.parametrize("asked", [200, 401])
def test_waits_past_the_answers_of_haproxy_itself(monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    monkeypatch.setattr(on_serve, "on_head", lambda: True)
    statuses = [404, 503, asked]
    with answering(statuses) as url:
        on_serve.wait_until_routed(url, time.monotonic() + 20, "too late")
    assert statuses == [asked]


def test_past_its_limit_it_says_what_it_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_serve, "on_head", lambda: True)
    with answering([404]) as url, pytest.raises(WaitTimeout, match=f"^the limit; waited for Serve to answer at {url}"):
        on_serve.wait_until_routed(url, time.monotonic(), "the limit")


def test_elsewhere_than_on_the_head_the_address_may_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_serve, "on_head", lambda: False)
    statuses = [404, 200]
    with answering(statuses) as url:
        on_serve.wait_until_routed(url, time.monotonic(), "the limit")
    assert statuses == [404, 200], "nobody was asked"
