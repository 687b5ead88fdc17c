"""Storage, token, cluster and teacher, sound and not."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import parse_config
from orpo_ray.config.models import TeacherConfig
from orpo_ray.doctor import Level, reach
from orpo_ray.doctor.packages import installed_version
from tests.unit.client.dashboard import TOKEN, fake_dashboard

Answers = Callable[[str, str | None], tuple[int, str]]


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@contextmanager
def server(answers: Answers) -> Iterator[str]:
    """`answers(path, authorisation)` gives status and body of every GET."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answers(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            return

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}"
    finally:
        listener.shutdown()
        listener.server_close()


def test_an_examination_leaves_nothing_on_the_storage(tmp_path: Path) -> None:
    assert reach.check_storage(tmp_path / "runs").level is Level.OK
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs").mkdir()
    assert reach.check_storage(tmp_path / "runs").level is Level.OK
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_storage_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    found = reach.check_storage(tmp_path / "runs")
    assert found.level is Level.FAULT
    assert "storage.path" in found.cure


def test_a_mirror_that_can_be_used_and_one_that_cannot(tmp_path: Path) -> None:
    assert reach.check_mirror((tmp_path / "mirror").as_uri()).level is Level.OK
    (tmp_path / "file").write_text("")
    found = reach.check_mirror((tmp_path / "file" / "x").as_uri())
    assert (found.level, found.check) == (Level.FAULT, "mirror")
    assert "cannot be used" in found.found
    assert found.cure.startswith("give a directory")


def test_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "none yet" in reach.check_token().found
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("mine")
    file.chmod(0o644)
    monkeypatch.setattr(reach, "_others_come_to", lambda directory: True)
    assert reach.check_token().cure == f"chmod 600 {file}"
    file.chmod(0o600)
    assert reach.check_token().level is Level.OK
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert reach.check_token().level is Level.FAULT
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    found = reach.check_token()
    assert (found.level, found.found) == (Level.OK, "from RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "CVE-2023-48022" in reach.check_token().found


def test_a_cluster_that_lets_in_whom_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_dashboard() as board:
        found = list(reach.check_cluster(board.url))
        assert [(finding.check, finding.level) for finding in found] == [("cluster", Level.FAULT)]
        assert "none was sent" in found[0].found
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        levels = [finding.level for finding in reach.check_cluster(board.url)]
        # The fake says it is Ray 2.60.0.
        assert levels == [Level.OK if installed_version("ray") == "2.60.0" else Level.WARNING, Level.OK]


def test_a_cluster_that_lets_everybody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(path: str, authorisation: str | None) -> tuple[int, str]:
        return 200, json.dumps({"ray_version": "2.9.0"} if path == "/api/version" else [])

    with server(answers) as url:
        other, open_ = reach.check_cluster(url)
        assert other.found.startswith(f"{url} has Ray 2.9.0, here is ")
        assert open_.level is Level.WARNING  # on loopback; elsewhere a fault
        monkeypatch.setattr(reach, "is_loopback", lambda url: False)
        assert list(reach.check_cluster(url))[-1].level is Level.FAULT


def test_no_cluster() -> None:
    (found,) = reach.check_cluster("http://127.0.0.1:1")
    assert found.level is Level.FAULT
    assert "no Ray cluster answers" in found.found


def asks(url: str, **more: Any) -> TeacherConfig:
    teacher = {"backend": "openai", "model": "big", "base_url": f"{url}/v1"} | more
    return parse_config({"task": {"name": "arithmetic"}, "student": {"model": "s"}, "teacher": teacher}).teacher


def test_an_api(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(path: str, authorisation: str | None) -> tuple[int, str]:
        if authorisation != "Bearer right":
            return 401, f"no such key: {authorisation}"
        return (200, json.dumps({"data": [{"id": "big"}]})) if path == "/v1/models" else (404, "")

    with server(answers) as url:
        assert reach.check_teacher(asks(url)).cure == "name the key's variable with teacher.api_key_env"
        keyed = asks(url, api_key_env="MY_KEY")
        monkeypatch.delenv("MY_KEY", raising=False)
        assert reach.check_teacher(keyed).found == "the environment variable MY_KEY is not set"
        monkeypatch.setenv("MY_KEY", "sk-planted")
        found = reach.check_teacher(keyed)
        assert found.level is Level.FAULT
        assert "sk-planted" not in str(found)
        monkeypatch.setenv("MY_KEY", "right")
        assert reach.check_teacher(keyed).level is Level.OK
        other = reach.check_teacher(asks(url, api_key_env="MY_KEY", model="small"))
        assert other.cure == "take one of big"
        missing = reach.check_teacher(asks(f"{url}/api", api_key_env="MY_KEY"))
        assert missing.level is Level.WARNING
    assert "cannot be reached" in reach.check_teacher(asks("http://127.0.0.1:1")).found


def test_a_local_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def served(**teacher: Any) -> Any:
        base = {"task": {"name": "arithmetic"}, "student": {"model": "s"}}
        return reach.check_teacher(parse_config(base | {"teacher": teacher}).teacher).level

    assert served(model=str(tmp_path)) is Level.OK
    assert served(model=str(tmp_path / "none")) is Level.FAULT
    assert served(model="Qwen/Qwen2.5-7B-Instruct") is Level.OK
    assert served(backend="recorded", path="dataset") is Level.OK
    assert served(backend="recorded", path="./traces.jsonl") is Level.FAULT
