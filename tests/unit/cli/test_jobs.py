"""`submit`, `status`, `logs`, `stop` and `list` against a fake dashboard: what is printed, and the exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orpo_ray.client import ClusterUnreachableError, Run, operations
from tests.unit.cli.conftest import CONFIG, Call
from tests.unit.client.dashboard import TOKEN, FakeDashboard, fake_dashboard


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, call: Call, tmp_path: Path) -> Iterator[FakeDashboard]:
    monkeypatch.setattr(operations, "POLL_S", 0.01)
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG | {"storage": {"path": str(tmp_path / "storage")}}))
    with fake_dashboard() as dashboard:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", dashboard.url)
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        yield dashboard


def test_submit_says_how_to_go_on(call: Call, board: FakeDashboard) -> None:
    ended = call(
        "submit", "toy.yaml", "--set", "train.epochs=2", "--driver-resource", "driver=1", "--env", "HF_HOME=/models"
    )
    assert ended.code == 0, ended.err
    identity = board.submitted[0]["submission_id"]
    assert ended.out == f"submitted {identity}\n  orpo-ray logs -f {identity}\n  orpo-ray stop {identity}\n"
    assert board.submitted[0]["entrypoint_resources"] == {"driver": 1}
    assert board.submitted[0]["runtime_env"]["env_vars"]["HF_HOME"] == "/models"


def test_what_is_wrong_is_exit_code_2(call: Call, board: FakeDashboard) -> None:
    for words in (
        ["submit", "toy.yaml", "--driver-resource", "driver"],
        ["submit", "toy.yaml", "--driver-resource", "driver=one"],
        ["submit", "toy.yaml", "--env", "MY_TOKEN=x"],
        ["submit", "toy.yaml", "--set", "storage.path=runs"],
        ["submit", "none.yaml"],
        ["status", "nobody"],
    ):
        ended = call(*words)
        assert ended.code == 2, words
        assert ended.err.startswith("orpo-ray: ")
    assert not board.submitted


@pytest.mark.parametrize(("code", "log"), [(0, "EXPORT   done\n"), (2, "orpo-ray: no\n"), (1, "orpo-ray: broke\n")])
def test_wait_ends_as_the_run_does(
    call: Call, board: FakeDashboard, monkeypatch: pytest.MonkeyPatch, code: int, log: str
) -> None:
    add = board.add

    def ends(identity: str, status: str, **more: object) -> None:
        add(identity, "SUCCEEDED" if code == 0 else "FAILED", driver_exit_code=code, **more)
        board.logs[identity] = log

    monkeypatch.setattr(board, "add", ends)
    ended = call("submit", "toy.yaml", "--wait")
    assert ended.code == code
    assert ended.out.endswith(log)


def test_status_list_logs_and_stop(call: Call, board: FakeDashboard) -> None:
    metadata = {"orpo_ray.run": "toy", "orpo_ray.storage": "/storage/runs"}
    board.add("toy-1", "RUNNING", metadata=metadata)
    board.add("toy-0", "FAILED", driver_exit_code=1, entrypoint="orpo-ray demo")
    board.logs = {"toy-1": "DISTILL  …\n", "toy-0": "TEACH    …\norpo-ray: the teacher is gone\n"}
    assert call("status", "toy").out == "toy-1: running in DISTILL\nfiles  /storage/runs/toy\n"
    assert json.loads(call("status", "toy", "--json").out)["phase"] == "DISTILL"
    assert call("logs", "toy").out == "DISTILL  …\n"
    listed = call("list").out.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["toy-1", "toy"], ["toy-0", "failed"]]
    assert "the teacher is gone" in listed[2]
    assert [json.loads(line)["id"] for line in call("list", "--json").out.splitlines()] == ["toy-1", "toy-0"]
    assert call("stop", "toy").out == "toy-1: stopped\n"
    assert call("stop", "toy-0").out == "toy-0: was over already: failed\n"


def test_errors_by_cause(call: Call, board: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    ended = call("list")
    assert (ended.code, "not authorised" in ended.err) == (2, True)
    ended = call("list", "--address", "http://127.0.0.1:1")
    assert (ended.code, "no Ray cluster answers" in ended.err) == (2, True)


def test_a_cluster_that_is_lost_on_the_way_is_no_mistake_of_the_callers(
    call: Call, board: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.add("toy-1", "RUNNING")
    board.logs["toy-1"] = "SEED     …\n"

    def lost(run: Run, follow: bool = False) -> Iterator[str]:
        yield "SEED     …\n"
        raise ClusterUnreachableError("no Ray cluster answers any more")

    monkeypatch.setattr(Run, "logs", lost)
    ended = call("logs", "-f", "toy-1", "--address", board.url)
    assert ended.code == 1
    assert ended.out == "SEED     …\n"
    assert "it may work on: no Ray cluster answers any more" in ended.err
    assert f"`orpo-ray logs -f toy-1 --address {board.url}`" in ended.err
