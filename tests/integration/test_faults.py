"""DISTILL under faults: real train workers and board, samplers on fake engines, an evaluator that only follows.

The run mends itself where a process died, and ends with one clear error where a verifier broke.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from orpo_ray.errors import VerifierError
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.distill import Distill
from orpo_ray.phases.seed import Seed
from orpo_ray.training.checkpoint import newest_checkpoint
from orpo_ray.training.ledger import read_ledger
from tests.tiny.fake_engine import FakeEngineSampler, FakeEngineSpec, FakeInitialSampler, write_sums
from tests.tiny.models import make_model
from tests.tiny.runs import context_of, teach_by_hand, tiny_config

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(900)]

PROMPTS, STEPS, ROWS = 20, 6, 48


class FollowingEvaluator:
    """Takes what the board hands out, and evaluates nothing."""

    async def follow(self, board: Any) -> int:
        done = 0
        while await board.next_evaluation.remote() is not None:
            done += 1
        return done

    async def evaluate(self, version: Any) -> None:
        """What SEED asks of it for the initial student."""


def evaluator_that_only_follows(_: RunContext) -> Any:
    import ray

    return ray.remote(num_cpus=0)(FollowingEvaluator).remote()


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture
def fake_engines(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orpo_ray.sampling.stream import pair_stream

    place = "orpo_ray.phases.distill"
    spec = partial(FakeEngineSpec, calls=tmp_path / "calls.jsonl", seconds=0.05)
    monkeypatch.setattr(f"{place}.SamplerSpec", spec)
    monkeypatch.setattr(f"{place}.pair_stream", partial(pair_stream, sampler=FakeEngineSampler))
    monkeypatch.setattr(f"{place}.running_evaluator", evaluator_that_only_follows)


def context_in(storage: Path, student: Path, **sections: Any) -> RunContext:
    context = context_of(tiny_config(storage, student, **sections))
    write_sums(context.layout.pairs, PROMPTS)
    return context


def notes(context: RunContext) -> list[str]:
    return [facts["text"] for kind, facts in context.live["said"] if kind == "note"]


@pytest.mark.usefixtures("fake_engines")
def test_a_killed_train_worker_is_made_up_for(tmp_path: Path, student: Path) -> None:
    context = context_in(tmp_path, student, policy={"phi": 1.0}, train={"checkpoint_every": 1, "zero_stage": 1})

    def kill() -> None:
        wait_for(lambda: newest_checkpoint(context.layout.checkpoints) is not None)
        train_workers()[-1].kill()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        result = Distill().run(context)
        killing.result()
    assert result["attempts"] == 2
    mended, resumed = notes(context)
    assert mended.endswith("; attempt 2 starts from the last checkpoint")
    assert resumed.startswith("going on from step ")
    assert sorted(line["row"] for line in read_ledger(context.layout.ledger)) == list(range(ROWS))
    assert {line["attempt"] for line in read_ledger(context.layout.ledger)} == {1, 2}


@pytest.mark.usefixtures("fake_engines")
def test_a_verifier_that_breaks_is_raised_as_it_is_and_never_tried_again(tmp_path: Path, student: Path) -> None:
    broken = {"name": "tests.tiny.broken:BrokenTask"}
    context = context_in(tmp_path, student, policy={"phi": 1.0}, task=broken)
    with pytest.raises(VerifierError) as raised:
        Distill().run(context)
    assert type(raised.value) is VerifierError
    assert str(raised.value) == "task broken, row 1+1: LookupError: no table for this sum"
    assert notes(context) == []


def test_seed_raises_a_broken_verifier_as_it_is(tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpo_ray.phases.seed.InitialSampler", FakeInitialSampler)
    monkeypatch.setattr("orpo_ray.phases.seed.running_evaluator", evaluator_that_only_follows)
    context = context_of(tiny_config(tmp_path, student, task={"name": "tests.tiny.broken:BrokenTask"}))
    teach_by_hand(context)
    with pytest.raises(VerifierError) as raised:
        Seed().run(context)
    assert type(raised.value) is VerifierError
    assert str(raised.value) == "task broken, row 1+1: LookupError: no table for this sum"


def train_workers() -> list[psutil.Process]:
    """Processes of this session's train workers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.05)
