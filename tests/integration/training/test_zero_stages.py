"""Two ranks under DeepSpeed train as one process without it does: ZeRO 1, 2 and 3, whatever each rank was given."""

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
import torch.multiprocessing
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from orpo_ray.config.deepspeed_json import deepspeed_config
from orpo_ray.training import stats
from orpo_ray.training.batching import FILLER, TokenGroup
from orpo_ray.training.extensions import build_comm_operator
from orpo_ray.training.model import OrpoModel


class Case(NamedTuple):
    kind: str
    stage: Literal[1, 2, 3]
    precision: Literal["fp32", "bf16"]
    checkpointing: bool = False


CASES = [
    Case("llama", 1, "fp32"),
    Case("llama", 2, "fp32"),
    Case("llama", 3, "fp32"),
    Case("llama", 3, "fp32", checkpointing=True),
    Case("gpt_neox", 3, "fp32"),
    Case("llama", 2, "bf16"),
    Case("llama", 3, "bf16"),
]
Found = tuple[list[dict[str, float]], dict[str, torch.Tensor]]

VOCAB, STEPS, LEARNING_RATE, CLIP = 61, 3, 1e-2, 1.0


def student(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    if kind == "llama":  # tied: one parameter is embedding and output layer
        return LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2, tie_word_embeddings=True))
    return GPTNeoXForCausalLM(GPTNeoXConfig(**shape))


def global_batches() -> list[list[TokenGroup]]:
    """Three global batches of four rows; the last holds a padding row."""
    generator = torch.Generator().manual_seed(5)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return tuple(torch.randint(0, VOCAB, (length,), generator=generator).tolist())

    batches = [
        [TokenGroup(tokens(2, 9), (tokens(1, 9), tokens(3, 9)), (tokens(2, 9),), ((0, 0), (1, 0))) for _ in range(4)]
        for _ in range(STEPS)
    ]
    batches[-1][3] = FILLER
    return batches


def train(engine: Any, rank: int, ranks: int) -> list[dict[str, float]]:
    """Ranks get every other row and cut them into unequal micro-batches, equally many each."""
    found = []
    for batch in global_batches():
        own = batch[rank::ranks]
        real_rows = sum(group.weight for group in batch)
        parts = [own[:1], own[1:]] if rank == 0 else [own, []]
        total = torch.zeros(len(stats.NAMES), dtype=torch.float64)
        for number, part in enumerate(parts):
            engine.set_gradient_accumulation_boundary(number == len(parts) - 1)
            loss, sums, _ = engine(engine.module.batch(part, real_rows))
            engine.backward(loss * ranks)
            total += sums
        engine.step()
        torch.distributed.all_reduce(total)
        found.append(stats.summary(total) | {"norm": float(engine.get_global_grad_norm())})
    return found


def run_rank(rank: int, directory: str, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    import deepspeed

    build_comm_operator(limit_s=200)
    deepspeed.init_distributed("gloo")
    found = {case: run_case(deepspeed, case, rank) for case in CASES}
    if rank == 0:
        torch.save(found, Path(directory) / "found.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def run_case(deepspeed: Any, case: Case, rank: int) -> Found:
    model = OrpoModel(student(case.kind))
    if case.checkpointing:
        model.student.gradient_checkpointing_enable({"use_reentrant": False})
    # every parameter is partitioned, however small
    user = {"zero_optimization": {"stage3_param_persistence_threshold": 0}} if case.stage == 3 else {}
    config = deepspeed_config(
        zero_stage=case.stage, precision=case.precision, learning_rate=LEARNING_RATE, max_grad_norm=CLIP, user=user
    )
    engine, *_ = deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=config)
    found = train(engine, rank, 2)
    parameters = list(model.student.named_parameters())
    with deepspeed.zero.GatheredParameters([p for _, p in parameters], modifier_rank=None, enabled=case.stage == 3):
        weights = {name: p.detach().float().clone() for name, p in parameters}
    engine.destroy()
    return found, weights


def run_plain(kind: str) -> Found:
    """One process, no DeepSpeed, one micro-batch a step."""
    model = OrpoModel(student(kind))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.0)
    found = []
    for batch in global_batches():
        optimizer.zero_grad()
        loss, sums, _ = model(model.batch(batch, real_rows=sum(group.weight for group in batch)))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        found.append(stats.summary(sums) | {"norm": norm.item()})
    return found, {name: p.detach() for name, p in model.student.named_parameters()}


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Found]:
    """All cases in one pair of processes: starting DeepSpeed takes longer than they do."""
    pytest.importorskip("deepspeed")
    directory = tmp_path_factory.mktemp("zero")
    torch.multiprocessing.spawn(run_rank, (str(directory), free_port()), nprocs=2)
    found: dict[Case, Found] = torch.load(directory / "found.pt", weights_only=False)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_ranks_train_as_one_process_does(trained: dict[Case, Found], case: Case) -> None:
    found, weights = trained[case]
    expected, expected_weights = run_plain(case.kind)
    tolerance = 1e-5 if case.precision == "fp32" else 3e-2
    for step, (got, want) in enumerate(zip(found, expected, strict=True)):
        for name in ("loss", "sft", "odds_ratio", "norm"):
            assert got[name] == pytest.approx(want[name], rel=tolerance), f"step {step}: {name}"
    assert weights.keys() == expected_weights.keys()
    if case.precision == "fp32":
        for name, weight in weights.items():
            torch.testing.assert_close(weight, expected_weights[name], rtol=1e-3, atol=1e-4, msg=f"{name} differs")
