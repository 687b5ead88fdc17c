"""A fake of Ray's dashboard: the Jobs API's answers as Ray 2.60 gives them, without a cluster behind."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "t" * 64


@dataclass
class FakeDashboard:
    """Attributes:
    jobs: as `/api/jobs/` tells them; a test adds and changes them.
    logs: by submission id; the next piece is appended at each request that finds `coming` filled.
    submitted: bodies of submissions.
    """

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    coming: dict[str, list[str]] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    uploads: int = 0
    stops: list[str] = field(default_factory=list)

    def add(self, identity: str, status: str, **more: Any) -> None:
        self.jobs[identity] = {
            "type": "SUBMISSION", "submission_id": identity, "status": status, "entrypoint": "orpo-ray run run.yaml",
            "message": "", "metadata": {}, "start_time": 1_700_000_000_000 + len(self.jobs), "end_time": None,
            "driver_exit_code": None, "driver_node_id": None,
        } | more  # fmt: skip


@contextmanager
def fake_dashboard() -> Iterator[FakeDashboard]:
    """Serve on a free port of the loopback address."""
    board = FakeDashboard()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._handle("GET")

        def do_POST(self) -> None:
            self._handle("POST")

        def do_PUT(self) -> None:
            self._handle("PUT")

        def do_DELETE(self) -> None:
            self._handle("DELETE")

        def _handle(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            authorisation = self.headers.get("Authorization")
            if authorisation is None:
                self._send(401, "Unauthorized: Missing authentication token")
            elif authorisation != f"Bearer {TOKEN}":
                self._send(403, "Forbidden: Invalid authentication token")
            else:
                self._send(*_answer(board, method, self.path, body))

        def _send(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    board.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield board
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(board: FakeDashboard, method: str, path: str, body: bytes) -> tuple[int, str]:
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "version"]:
        return 200, json.dumps({"ray_version": "2.60.0"})
    if parts[:2] == ["api", "packages"]:
        name = parts[3]
        if method == "PUT":
            board.packages[name] = body
            board.uploads += 1
            return 200, ""
        return (200, "") if name in board.packages else (404, f"Package gcs://{name} does not exist")
    if parts[:2] != ["api", "jobs"]:
        return 404, "404: Not Found"
    if len(parts) == 2:
        if method == "GET":
            return 200, json.dumps([*board.jobs.values(), {"type": "DRIVER", "submission_id": None}])
        submission = json.loads(body)
        identity = submission.get("submission_id") or f"raysubmit_{len(board.jobs)}"
        board.submitted.append(submission)
        board.add(identity, "PENDING", metadata=submission.get("metadata"), entrypoint=submission["entrypoint"])
        return 200, json.dumps({"submission_id": identity, "job_id": identity})
    identity = parts[2]
    if identity not in board.jobs:
        return 404, f"Job {identity} does not exist"
    if len(parts) == 3:
        if method == "DELETE":
            del board.jobs[identity]
            return 200, json.dumps({"deleted": True})
        return 200, json.dumps(board.jobs[identity])
    if parts[3] == "stop":
        board.stops.append(identity)
        board.jobs[identity] |= {"status": "STOPPED"}
        return 200, json.dumps({"stopped": True})
    if board.coming.get(identity):
        board.logs[identity] = board.logs.get(identity, "") + board.coming[identity].pop(0)
        if not board.coming[identity]:
            board.jobs[identity] |= {"status": "SUCCEEDED", "driver_exit_code": 0}
    return 200, json.dumps({"logs": board.logs.get(identity, "")})
