"""What a train worker's waits say past their limits, and that a passing one does not end the run."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError

from orpo_ray.config import parse_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import SamplerLostError, WaitTimeout
from orpo_ray.pairs import PhiRule
from orpo_ray.phases.retry import decide
from orpo_ray.training import worker
from orpo_ray.training.worker import Batches, WorkerSpec, collective_timeout
from orpo_ray.weights import Version
from orpo_ray.weights.board import AttemptStart, answered
from tests.unit.config.data import MINIMAL

# As gloo says it, of torch 2.13.
TIMED_OUT = (
    "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:129] Timed out waiting 3000ms for send "
    "operation to complete"
)
CLOSED = "Application timeout caused pair closure"


@pytest.mark.parametrize("said", [TIMED_OUT, CLOSED])
def test_a_collective_that_took_too_long_says_whose_and_what_for(said: str) -> None:
    found = collective_timeout(RuntimeError(said), rank=1, limit_s=3, where="after 7 steps, in a checkpoint")
    assert str(found) == (
        f"limits.collective_s: rank 1 waited 3 s for the other ranks after 7 steps, in a checkpoint ({said})"
    )
    assert found is not None
    assert decide(found, failures=1, limit=3).retry


def test_another_error_is_left_as_it_is() -> None:
    assert collective_timeout(RuntimeError("CUDA out of memory"), rank=1, limit_s=3, where="") is None


def test_a_board_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(call: object, timeout: float) -> None:
        raise GetTimeoutError

    monkeypatch.setattr(ray, "get", never)
    with pytest.raises(WaitTimeout, match=r"^limits\.start_s: the weight board did not answer within 5 s$"):
        answered(object(), 5)


class Board:
    """Answers `check_rows` by what it was told to, and counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, list[tuple[Any, ...]]()

    @property
    def check_rows(self) -> Any:
        class Call:
            @staticmethod
            def remote(*arguments: Any) -> Exception | None:
                self.asked.append(arguments)
                return self.error

        return Call()


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    config = parse_config(MINIMAL)
    geometry = config.geometry(32)
    phi = PhiRule.of(config, geometry)
    start = AttemptStart(4, 0, None)
    return WorkerSpec(config, RunLayout(tmp_path, "run"), geometry, start, Version(0, "", step=0), "", phi)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set it, and a batch comes."""
    come = threading.Event()

    def batches(geometry: object) -> Iterator[str]:
        come.wait(30)
        yield "batch"

    def answer(call: Exception | None, limit_s: float) -> None:
        if call is not None:
            come.set()
            raise call

    monkeypatch.setattr(worker, "_batches", batches)
    monkeypatch.setattr(worker, "answered", answer)
    monkeypatch.setattr(worker, "_LOOK_S", 0.01)
    return come


def test_rows_that_come_are_waited_for_and_asked_after(spec: WorkerSpec, rows: threading.Event) -> None:
    board = Board()
    batches = Batches(spec, board)
    threading.Timer(0.1, rows.set).start()
    assert batches.take() == "batch"
    batches.ask()
    assert batches.take() is None
    # start_s, reload_s and generate_s by default.
    assert set(board.asked) == {(4, 120.0, 600.0 + 300.0 + 1800.0)}


@pytest.mark.usefixtures("rows")
def test_rows_that_no_sampler_brings_are_not_waited_for(spec: WorkerSpec) -> None:
    with pytest.raises(SamplerLostError, match="sampler-a"):
        Batches(spec, Board(SamplerLostError("sampler-a"))).take()
