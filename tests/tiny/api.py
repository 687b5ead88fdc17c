"""An OpenAI-compatible server that answers from a script: what a teacher says, and how it fails."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Refusal:
    """An HTTP error instead of an answer."""

    status: int
    message: str = "scripted"
    headers: dict[str, str] = field(default_factory=dict)


# From a request's JSON body to the texts of its choices (text, finish_reason), or to an error.
Script = Callable[[dict[str, Any]], list[tuple[str, str]] | Refusal]


@dataclass
class FakeApi:
    """What the test sees of the server."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0


@contextmanager
def fake_api(script: Script) -> Iterator[FakeApi]:
    """Serve `script` on a free port of the loopback address."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                api.requests.append(body)
                api.keys.append(self.headers.get("Authorization", ""))
                api.in_flight += 1
                api.most_in_flight = max(api.most_in_flight, api.in_flight)
            try:
                said = script(body)
            finally:
                with lock:
                    api.in_flight -= 1
            self._send(said)

        def _send(self, said: list[tuple[str, str]] | Refusal) -> None:
            status, headers = 200, {}
            if isinstance(said, Refusal):
                status, headers = said.status, said.headers
                content: dict[str, Any] = {"error": {"message": said.message, "type": "scripted", "code": status}}
            else:
                content = {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "fake",
                    "choices": [
                        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
                        for i, (text, reason) in enumerate(said)
                    ],
                }
            data = json.dumps(content).encode()
            self.send_response(status)
            for name, value in (
                headers | {"Content-Type": "application/json", "Content-Length": str(len(data))}
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512

    server = Server(("127.0.0.1", 0), Handler)
    api = FakeApi(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
