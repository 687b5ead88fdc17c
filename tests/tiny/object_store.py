"""A real S3 server (moto's) in a process of its own, and a way to it on which things go wrong when a test says so."""

import itertools
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from tests.tiny.cluster import ROOT

_PYTHON = ROOT / ".tools" / "bin" / "python"
_START_S = 60
BUCKET = "bucket"
_OF_A_CONNECTION = ("content-length", "transfer-encoding", "connection", "expect")

Fault = Literal["unavailable", "error", "cut"]
"""A 503 SlowDown, a 500 InternalError, or a connection that ends half way: in the request of a PUT, in the answer of a GET."""
Faults = Callable[[str, str, int], Fault | None]


def why_none() -> str | None:
    """Why no S3 server can be had here; None where one can."""
    if not _PYTHON.is_file() or subprocess.run([_PYTHON, "-c", "import moto.server"], capture_output=True).returncode:
        return "needs moto, which `make tools` installs"
    return None


class ObjectStore:
    """A context.

    Attributes:
        url: where clients go; set AWS_ENDPOINT_URL to it.
        faults: given method, path and number of each request, what goes wrong with it.
        requests: (method, path) of all that were made.
    """

    def __enter__(self) -> "ObjectStore":
        self.faults: Faults = lambda method, path, number: None
        self.requests: list[tuple[str, str]] = []
        self._port = _free_port()
        command = [str(_PYTHON), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._make_bucket()
        self._proxy = _proxy_of(self)
        threading.Thread(target=self._proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()
        self._process.terminate()
        self._process.wait(30)

    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "whatever",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def connection(self) -> HTTPConnection:
        """A way to the server itself, past the faults."""
        return HTTPConnection("127.0.0.1", self._port, timeout=30)

    def _make_bucket(self) -> None:
        end = time.monotonic() + _START_S
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/{BUCKET}", method="PUT")
        while True:
            try:
                urllib.request.urlopen(request, timeout=10).close()
                return
            except urllib.error.URLError:
                assert self._process.poll() is None, "moto's server has ended"
                assert time.monotonic() < end, "moto's server does not answer"
                time.sleep(0.1)


def now_and_then(every: int, kinds: tuple[Fault, ...] = ("unavailable", "cut", "error")) -> Faults:
    """Every so many requests a fault, of each kind in turn."""
    turns = itertools.cycle(kinds)
    return lambda method, path, number: next(turns) if number % every == 0 else None


def always(method: str, part: str, kind: Fault = "unavailable") -> Faults:
    """All requests of a method whose path has `part` in it."""
    return lambda made, path, number: kind if made == method and part in path else None


def _proxy_of(store: ObjectStore) -> ThreadingHTTPServer:
    numbers = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            method, number = self.command, next(numbers)
            store.requests.append((method, self.path))
            fault = store.faults(method, self.path, number)
            if fault == "cut" and method in ("PUT", "POST"):
                self.rfile.read(1)
                self._cut()
                return
            body = self._body()
            if fault in ("unavailable", "error"):
                self._refuse(503 if fault == "unavailable" else 500)
                return
            upstream = store.connection()
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_A_CONNECTION}
            upstream.request(method, self.path, body, headers | {"Content-Length": str(len(body))})
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (*_OF_A_CONNECTION, "date", "server"):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length") if method == "HEAD" else str(len(content))
            self.send_header("Content-Length", size or "0")
            self.end_headers()
            if fault == "cut":
                self.wfile.write(content[: len(content) // 2])
                self._cut()
            elif method != "HEAD":
                self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def _refuse(self, status: int) -> None:
            code = {503: "SlowDown", 500: "InternalError"}[status]
            content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made to fail</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            return

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._pass_on)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
