"""Optimizer steps by real DeepSpeed ranks: neither world size nor packing moves them, nor does a change of both midway;
a loss that is not finite passes a step over on every rank, and leaves nothing behind."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from orpo_ray.config import RunConfig
from orpo_ray.training import deepspeed_engine, stats
from orpo_ray.training.batching import FILLER, TokenGroup
from orpo_ray.training.checkpoint import load_checkpoint, save_checkpoint, world_size
from orpo_ray.training.publish import gather_student
from orpo_ray.training.sharing import share_batch
from tests.integration.training.test_zero_stages import free_port
from tests.tiny.models import make_model
from tests.tiny.runs import tiny_config

ROWS, STEPS, BROKEN_TOKEN = 6, 6, 279
HALF = STEPS // 3


def global_batches() -> list[list[TokenGroup]]:
    """Six global batches of rows of very different lengths; the last holds a row of weight 0."""
    draw = random.Random(3)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, BROKEN_TOKEN) for _ in range(draw.randint(low, high)))

    def row(step: int, place: int) -> TokenGroup:
        pairs = ((0, 0), (1, 0), (0, -1))
        return TokenGroup(
            tokens(2, 20), (tokens(1, 30), tokens(3, 9)), (tokens(2, 30),), pairs, name=f"prompt-{step}-{place}"
        )

    batches = [[row(step, place) for place in range(ROWS)] for step in range(STEPS)]
    batches[-1][2] = FILLER
    return batches


@dataclass(frozen=True)
class Plan:
    """A stretch of training in one world.

    Attributes:
        batches: a global batch for each step.
        persistent: small parameters stay on every rank from step to step, as DeepSpeed has it where nobody says otherwise.
        publishes: the student is gathered after each step.
        load, save: checkpoint directories.
    """

    name: str
    batches: list[list[TokenGroup]]
    token_budget: int = 8192
    micro_batch: int = 100
    stage: int = 2
    precision: str = "fp32"
    student: str = "neox"
    objective: str = "orpo"
    persistent: bool = False
    publishes: bool = False
    load: str | None = None
    save: str | None = None


Found = dict[str, list[dict[str, Any]]]


def config_of(plan: Plan, directory: Path) -> RunConfig:
    train = {"zero_stage": plan.stage, "precision": plan.precision, "objective": plan.objective}
    train |= {"learning_rate": 1e-3, "max_grad_norm": 0.5}
    if plan.stage == 3 and not plan.persistent:  # every parameter is partitioned, however small
        train["deepspeed"] = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    return tiny_config(directory / "runs", directory / plan.student, train=train)


def run_plan(plan: Plan, directory: Path, rank: int, ranks: int) -> list[dict[str, Any]]:
    config = config_of(plan, directory)
    checkpoint = directory / plan.load if plan.load else None
    resharded = checkpoint is not None and world_size(checkpoint) != ranks
    engine = deepspeed_engine.start(config, str(directory / plan.student), load_universal=resharded)
    if checkpoint is not None:
        load_checkpoint(engine, checkpoint, rank=rank, resharded=resharded, barrier=dist.barrier)
    found = []
    for batch in plan.batches:
        shares = share_batch(batch, ranks, plan.token_budget, plan.micro_batch)
        real_rows = round(sum(group.weight for group in batch))
        result = deepspeed_engine.train_step(engine, shares[rank].micro_batches, real_rows, torch.device("cpu"))
        assert result.seconds_RM.shape == (ranks, len(shares[0].micro_batches))
        found.append(
            stats.summary(result.sums)
            | {"norm": result.grad_norm, "applied": result.applied, "not_finite": result.not_finite}
            | {"micro_steps": len(shares[0].micro_batches), "balance": result.time_balance}
        )
        if plan.publishes:
            gather_student(engine.module.student, partitioned=plan.stage == 3, rank=rank, precision="fp32")
    if plan.save:
        facts = {"step": 0, "version": 0, "version_path": "", "version_step": 0, "world_size": ranks}
        save_checkpoint(engine, directory / plan.save, facts, rank=rank, barrier=dist.barrier)
    engine.destroy()
    return found


def run_rank(rank: int, ranks: int, plans: Sequence[Plan], directory: str, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    found = {plan.name: run_plan(plan, Path(directory), rank, ranks) for plan in plans}
    torch.save(found, Path(directory) / f"found-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def in_world(ranks: int, directory: Path, plans: Sequence[Plan]) -> list[Found]:
    """What each rank found. A rank that waits for another for ever fails the test by its time limit."""
    torch.multiprocessing.spawn(run_rank, (ranks, plans, str(directory), free_port()), nprocs=ranks)
    return [torch.load(directory / f"found-{rank}.pt", weights_only=False) for rank in range(ranks)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Everything in three worlds: two ranks, one rank, and two again; what rank 0 found, and that rank 1 agrees."""
    pytest.importorskip("deepspeed")
    directory = tmp_path_factory.mktemp("worlds")
    make_model(directory / "neox")
    break_embedding(make_model(directory / "broken"))
    batches = global_batches()
    poisoned = [replace(group, prompt=(*group.prompt, BROKEN_TOKEN)) if at == 4 else group
                for at, group in enumerate(batches[1])]  # fmt: skip
    plans = [
        Plan(f"{name}-{stage}", given, stage=stage, **options)  # type: ignore[arg-type]
        for stage in (1, 2, 3)
        for name, given, options in (
            ("whole", batches, {}),
            ("cut", batches, {"token_budget": 60, "micro_batch": 2}),
            ("first", batches[:HALF], {"save": f"first-{stage}"}),
            ("unbroken", [batches[0], batches[2]], {"student": "broken", "micro_batch": 1}),
            ("poisoned", [batches[0], poisoned, batches[2]], {"student": "broken", "micro_batch": 1}),
        )
    ]
    plans += [
        Plan("first-persistent", batches[:HALF], stage=3, persistent=True, save="first-persistent"),
        Plan("rest-persistent", batches[HALF:], stage=3, persistent=True, publishes=True, load="first-persistent"),
    ]
    plans.append(Plan("gradient", batches[:1], objective="tests.tiny.objectives:InfiniteGradient"))
    plans += [
        Plan(f"{name}-bf16-{stage}", given, stage=stage, precision="bf16", save=save)
        for stage in (1, 2, 3)
        for name, given, save in (("whole", batches, None), ("first", batches[:HALF], f"first-bf16-{stage}"))
    ]
    resharded: dict[str, Any] = {f"{stage}": {"stage": stage} for stage in (1, 2, 3)}
    resharded |= {f"bf16-{stage}": {"stage": stage, "precision": "bf16"} for stage in (1, 2, 3)}
    two = in_world(2, directory, plans)
    plans = [Plan(f"alone-{stage}", batches, token_budget=90, stage=stage) for stage in (1, 2, 3)]
    plans += [
        Plan(f"second-{kind}", batches[HALF : 2 * HALF], load=f"first-{kind}", save=f"second-{kind}", **options)
        for kind, options in resharded.items()
    ]
    one = in_world(1, directory, plans)
    again = in_world(
        2,
        directory,
        [
            Plan(f"third-{kind}", batches[2 * HALF :], load=f"second-{kind}", **options)
            for kind, options in resharded.items()
        ],
    )
    for name, steps in two[0].items():
        assert repr(two[1][name]) == repr(steps), "the ranks disagree"
    assert sorted(path.name for path in directory.glob("*.partial")) == []
    return two[0] | one[0] | again[0]


def break_embedding(student: Path) -> None:
    """A prompt with this one token has a loss of NaN, all others have none."""
    file = student / "model.safetensors"
    weights = load_file(file)
    weights["gpt_neox.embed_in.weight"][BROKEN_TOKEN] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})


def check_same(got: list[dict[str, Any]], want: list[dict[str, Any]], tolerance: float) -> None:
    assert len(got) == len(want)
    for step, (one, other) in enumerate(zip(got, want, strict=True)):
        for name in ("loss", "sft", "odds_ratio", "norm", "rejected_gradient"):
            assert one[name] == pytest.approx(other[name], rel=tolerance), f"step {step}: {name}"
        assert one["pairs"] == other["pairs"] > 0


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_neither_packing_nor_world_size_moves_a_step(found: Found, stage: int) -> None:
    whole, cut, alone = (found[f"{name}-{stage}"] for name in ("whole", "cut", "alone"))
    assert len({step["micro_steps"] for step in whole + cut + alone}) > 2, "they were to be cut differently"
    check_same(cut, whole, 1e-6)
    check_same(alone, whole, 1e-6)


@pytest.mark.parametrize("stage", [2, 3])
def test_the_stages_agree(found: Found, stage: int) -> None:
    check_same(found[f"whole-{stage}"], found["whole-1"], 1e-6)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_ranks_then_one_then_two_train_as_two_throughout(found: Found, stage: int) -> None:
    resumed = [step for name in ("first", "second", "third") for step in found[f"{name}-{stage}"]]
    check_same(resumed, found[f"whole-{stage}"], 1e-5)


def test_a_resumed_student_is_published_and_trained_on(found: Found) -> None:
    """Parameters that a checkpoint's loading left whole on every rank, and publishing did not."""
    check_same(found["first-persistent"] + found["rest-persistent"], found["whole-3"], 1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_so_they_do_in_bf16(found: Found, stage: int) -> None:
    """As far as bf16 goes; the weights that are resumed from are the float32 ones."""
    resumed = [step for name in ("first", "second", "third") for step in found[f"{name}-bf16-{stage}"]]
    check_same(resumed, found[f"whole-bf16-{stage}"], 2e-2)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_loss_that_is_not_finite_passes_the_step_over(found: Found, stage: int) -> None:
    """On one of two ranks, in one of its micro-steps; the prompt is named on both, and the next step is as without."""
    before, skipped, after = found[f"poisoned-{stage}"]
    assert [step["applied"] for step in (before, skipped, after)] == [True, False, True]
    assert skipped["not_finite"] == ("prompt-1-4",)
    assert before["not_finite"] == after["not_finite"] == ()
    check_same([before, after], found[f"unbroken-{stage}"], 1e-6)


def test_a_gradient_that_is_not_finite_passes_the_step_over(found: Found) -> None:
    (step,) = found["gradient"]
    assert step["applied"] is False
    assert step["not_finite"] == ()
    assert step["loss"] > 0


def test_the_balance_of_ranks_is_measured(found: Found) -> None:
    assert all(1.0 <= step["balance"] <= 2.0 for step in found["whole-2"])
    assert all(step["balance"] == pytest.approx(1.0) for step in found["alone-2"])
