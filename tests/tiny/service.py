"""The control plane's real application under uvicorn, with a fake cluster behind it."""

import socket
import threading
from pathlib import Path

import uvicorn

from orpo_ray.service.app import create_app
from orpo_ray.service.runs import Runs
from orpo_ray.teacher.key_gate import digest
from tests.unit.service.fake_jobs import FakeJobs

TOKEN = "a-token-of-some-length"


class Service:
    """The application at a port of this machine, which can go away and come back."""

    def __init__(self, storage: Path, jobs: FakeJobs) -> None:
        self.storage, self.jobs = storage, jobs
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        app = create_app(Runs(self.storage, self.jobs), digest(TOKEN))
        self._server = uvicorn.Server(
            uvicorn.Config(app, port=self.port, log_level="error", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
