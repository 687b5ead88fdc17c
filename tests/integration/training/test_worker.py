"""The worker group under Ray Train, on fake samplers: it starts again with other workers, and ends where numbers do."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from orpo_ray.errors import OrpoRayError
from orpo_ray.pairs import PairSource, Plan
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.distill import Distill
from orpo_ray.phases.metrics_tail import read_metrics
from orpo_ray.training.checkpoint import newest_checkpoint
from orpo_ray.training.deepspeed_engine import NonFiniteLossError
from orpo_ray.training.ledger import read_ledger
from tests.integration.test_faults import (
    ROWS,
    STEPS,
    context_in,
    evaluator_that_only_follows,
    notes,
    session_processes,
    wait_for,
)
from tests.tiny.fake_engine import FakeEngineSampler, FakeEngineSpec
from tests.tiny.models import make_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fake_samplers"), pytest.mark.timeout(900)]


@pytest.fixture
def fake_samplers(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orpo_ray.sampling.stream import pair_stream

    place = "orpo_ray.phases.distill"
    monkeypatch.setattr(f"{place}.SamplerSpec", partial(FakeEngineSpec, calls=tmp_path / "calls.jsonl", seconds=0.05))
    monkeypatch.setattr(f"{place}.pair_stream", partial(pair_stream, sampler=FakeEngineSampler))
    monkeypatch.setattr(f"{place}.running_evaluator", evaluator_that_only_follows)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose every loss is NaN."""
    path = make_model(tmp_path_factory.mktemp("models") / "broken")
    weights = load_file(path / "model.safetensors")
    weights["gpt_neox.final_layer_norm.weight"].fill_(math.nan)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def losses(context: RunContext) -> list[float | None]:
    lines = list(read_metrics(context.layout.metrics))
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line.get("loss") for line in lines]


def test_a_run_goes_on_with_other_workers(tmp_path: Path, student: Path) -> None:
    """Two workers, of which one is killed, then one alone: the losses of an undisturbed run."""
    train = {"checkpoint_every": 1, "zero_stage": 3}
    policy = {"phi": 0.0}
    undisturbed = context_in(tmp_path / "undisturbed", student, policy=policy, train=train)
    Distill().run(undisturbed)
    first = context_in(tmp_path / "moved", student, policy=policy, train=train, limits={"failures": 0})

    def kill() -> None:
        wait_for(lambda: newest_checkpoint(first.layout.checkpoints) is not None)
        session_processes("RayTrainWorker")[-1].kill()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        with pytest.raises(OrpoRayError, match="the worker group failed 1 times"):
            Distill().run(first)
        killing.result()
    checkpoint = newest_checkpoint(first.layout.checkpoints)
    assert checkpoint is not None
    assert checkpoint.step < STEPS, "it ended before it could be killed"
    alone = context_in(tmp_path / "moved", student, policy=policy, train={**train, "workers": 1})
    assert Distill().run(alone)["steps"] == STEPS
    assert notes(alone) == [f"going on from step {checkpoint.step} of {STEPS}"]
    assert losses(alone) == pytest.approx(losses(undisturbed), rel=1e-5)
    assert sorted(line["row"] for line in read_ledger(alone.layout.ledger)) == list(range(ROWS))
    assert {line["rank"] for line in read_ledger(alone.layout.ledger) if line["attempt"] == 2} == {0}


def test_a_loss_that_is_not_finite_ends_the_run_with_the_prompts_named(tmp_path: Path, broken: Path) -> None:
    """On all ranks alike: none is left waiting for another, and it is not tried again."""
    context = context_in(tmp_path, broken, policy={"phi": 0.0})
    with pytest.raises(NonFiniteLossError) as raised:
        Distill().run(context)
    source = PairSource(context.layout.pairs)
    plan = Plan(context.config.seed, (0.0,), context.config.geometry(len(source)), source.prompt_id)
    first = sorted(plan.row(index).prompt_id for index in range(8))
    assert str(raised.value) == f"step 1: the loss is not finite for prompts {', '.join(first)}; nothing was updated"
    assert notes(context) == []
    assert list(read_ledger(context.layout.ledger)) == []


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path: Path, broken: Path) -> None:
    context = context_in(tmp_path, broken, policy={"phi": 0.0}, train={"non_finite": "skip"})
    result = Distill().run(context)
    assert (result["skipped_steps"], result["pairs"], result["loss_first"]) == (STEPS, 0, None)
    assert losses(context) == [None] * STEPS
    lines = list(read_ledger(context.layout.ledger))
    assert sorted(line["row"] for line in lines) == list(range(ROWS))
    assert {(line["policy"], line["pairs"]) for line in lines} == {("skipped", 0), ("padding", 0)}
