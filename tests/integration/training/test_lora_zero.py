"""Adapters under DeepSpeed, two ranks: ZeRO 1, 2 and 3 train, publish, checkpoint and resume as one plain process does."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import peft
import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from orpo_ray.config.deepspeed_json import deepspeed_config
from orpo_ray.config.training import LoraConfig
from orpo_ray.training import stats
from orpo_ray.training.checkpoint import load_checkpoint, save_checkpoint
from orpo_ray.training.extensions import build_comm_operator
from orpo_ray.training.lora import adapt
from orpo_ray.training.model import OrpoModel, load_student
from orpo_ray.training.publish import gather_student
from tests.integration.training.test_zero_stages import free_port, global_batches, student

pytest.importorskip("deepspeed")
Stage = Literal[1, 2, 3]
LORA = LoraConfig(rank=4, alpha=16)
LEARNING_RATE, CLIP = 1e-2, 1.0
BEFORE = 2  # steps before the checkpoint, of 3


class Case(NamedTuple):
    stage: Stage
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpointing: bool = False


CASES = [Case(1), Case(2), Case(3), Case(3, checkpointing=True), Case(2, "bf16"), Case(3, "bf16")]


def model_of(base: Path, checkpointing: bool = False) -> OrpoModel:
    torch.manual_seed(1)
    loaded = load_student(base)
    if checkpointing:
        loaded.gradient_checkpointing_enable({"use_reentrant": False})
    return OrpoModel(adapt(loaded, LORA).train())


def step(engine: Any, batch: Any, rank: int) -> dict[str, float]:
    own, real_rows = batch[rank::2], sum(group.weight for group in batch)
    parts = [own[:1], own[1:]] if rank == 0 else [own, []]
    total = torch.zeros(len(stats.NAMES), dtype=torch.float64)
    for number, part in enumerate(parts):
        engine.set_gradient_accumulation_boundary(number == len(parts) - 1)
        loss, sums, _ = engine(engine.module.batch(part, real_rows))
        engine.backward(loss * 2)
        total += sums
    engine.step()
    torch.distributed.all_reduce(total)
    return stats.summary(total) | {"norm": float(engine.get_global_grad_norm())}


def run_case(deepspeed: Any, case: Case, rank: int, directory: Path) -> list[dict[str, float]]:
    def start() -> Any:
        model = model_of(directory / "base", case.checkpointing)
        user = {"zero_optimization": {"stage3_param_persistence_threshold": 0}} if case.stage == 3 else {}
        config = deepspeed_config(
            zero_stage=case.stage, precision=case.precision, learning_rate=LEARNING_RATE, max_grad_norm=CLIP, user=user
        )
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return deepspeed.initialize(model=model, model_parameters=trainable, config=config)[0]

    own, barrier = directory / name_of(case), torch.distributed.barrier
    engine, found = start(), []
    for batch in global_batches()[:BEFORE]:
        found.append(step(engine, batch, rank))
    facts = {"step": BEFORE, "version": 0, "version_path": "", "version_step": 0, "world_size": 2}
    save_checkpoint(engine, own / "checkpoint", facts, rank=rank, barrier=barrier)
    engine.destroy()
    engine = start()
    load_checkpoint(engine, own / "checkpoint", rank=rank)
    for batch in global_batches()[BEFORE:]:
        found.append(step(engine, batch, rank))
    for adapter_only in (True, False):
        published = gather_student(
            engine.module.student,
            partitioned=case.stage == 3,
            rank=rank,
            precision=case.precision,
            adapter_only=adapter_only,
        )
        if rank == 0:
            target = own / ("adapter" if adapter_only else "whole")
            target.mkdir()
            published.write(target, directory / "base")
        else:
            assert published.nbytes == 0
    engine.destroy()
    return found


def name_of(case: Case) -> str:
    return "-".join(map(str, case))


def run_rank(rank: int, directory: str, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    import deepspeed

    build_comm_operator(limit_s=200)
    deepspeed.init_distributed("gloo")
    found = {case: run_case(deepspeed, case, rank, Path(directory)) for case in CASES}
    if rank == 0:
        torch.save(found, Path(directory) / "found.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lora")
    student("llama").save_pretrained(str(directory / "base"))
    torch.multiprocessing.spawn(run_rank, (str(directory), free_port()), nprocs=2)
    return directory


def run_plain(base: Path) -> tuple[list[dict[str, float]], Any]:
    """One process, no DeepSpeed, no checkpoint."""
    model = model_of(base)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.0)
    found = []
    for batch in global_batches():
        optimizer.zero_grad()
        loss, sums, _ = model(model.batch(batch, real_rows=sum(group.weight for group in batch)))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trainable, CLIP)
        optimizer.step()
        found.append(stats.summary(sums) | {"norm": norm.item()})
    return found, model.student


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_ranks_train_and_resume_as_one_process(directory: Path, case: Case) -> None:
    found = torch.load(directory / "found.pt", weights_only=False)[case]
    expected, trained = run_plain(directory / "base")
    tolerance = 1e-5 if case.precision == "fp32" else 5e-2
    for number, (got, want) in enumerate(zip(found, expected, strict=True)):
        for name in ("loss", "sft", "odds_ratio", "norm"):
            assert got[name] == pytest.approx(want[name], rel=tolerance), f"step {number}: {name}"
    if case.precision == "fp32":
        adapter = load_file(directory / name_of(case) / "adapter" / "adapter_model.safetensors")
        wanted = peft.get_peft_model_state_dict(trained)
        assert adapter.keys() == wanted.keys()
        for name, tensor in adapter.items():
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_both_ways_of_publishing_are_the_same_student(directory: Path, case: Case) -> None:
    """And the base below the adapter is the untouched one."""
    own, ids = directory / name_of(case), torch.arange(20)[None]
    base = AutoModelForCausalLM.from_pretrained(directory / "base").eval()
    initial = base(ids).logits
    adapted = peft.PeftModel.from_pretrained(base, str(own / "adapter")).eval()(ids).logits
    whole = AutoModelForCausalLM.from_pretrained(own / "whole", dtype=torch.float32).eval()(ids).logits
    assert (adapted - initial).abs().max() > 1e-2
    tolerance = 1e-5 if case.precision == "fp32" else 3e-2
    torch.testing.assert_close(whole, adapted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", [Case(1), Case(2), Case(3)], ids=name_of)
def test_a_checkpoint_holds_what_is_trained(directory: Path, case: Case) -> None:
    """Adapters in training precision, and their float32 copy with two moments for the optimizer: not the base."""
    trainable = sum(
        t.numel() for t in load_file(directory / name_of(case) / "adapter/adapter_model.safetensors").values()
    )
    held = 0
    for file in (directory / name_of(case) / "checkpoint").rglob("*_states.pt"):
        held += sum(tensor.numel() for tensor in tensors_in(torch.load(file, weights_only=False)))
    # Under ZeRO-3 the weights are in the float32 copy alone. The base would be another 5 times.
    assert 3 * trainable <= held < 8 * trainable


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
