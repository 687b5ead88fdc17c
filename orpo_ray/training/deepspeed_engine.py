"""The DeepSpeed engine round the student: start it, set its learning rate, take one optimizer step."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from orpo_ray.config import RunConfig
from orpo_ray.config.training import TrainConfig
from orpo_ray.errors import OrpoRayError
from orpo_ray.training.batching import TokenGroup
from orpo_ray.training.deepspeed_config import deepspeed_config, lr_scale
from orpo_ray.training.extensions import build_comm_operator
from orpo_ray.training.lora import adapt
from orpo_ray.training.model import OrpoModel, load_student
from orpo_ray.training.objective import Orpo, load_objective


class NonFiniteLossError(OrpoRayError):
    """A pair's loss is not a finite number; the message names the prompts."""


def start(config: RunConfig, initial: str) -> Any:
    """A DeepSpeed engine on the student's initial weights.

    Gradients are accumulated by hand (`train_step`), so that a step may have any number of micro-batches.
    """
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    build_comm_operator(config.limits.start_s)
    student = load_student(initial)
    if config.train.gradient_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    trained = student if config.train.lora is None else adapt(student, config.train.lora)
    # Modules come in inference mode, in which gradient checkpointing and the adapters' dropout do nothing.
    model = OrpoModel(trained.train(), load_objective(config.train.objective, config.train.lam))
    train = config.train
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=deepspeed_config(
            zero_stage=train.zero_stage,
            precision=train.precision,
            learning_rate=train.learning_rate,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            on_cpu=not torch.cuda.is_available(),
            user=train.deepspeed,
        ),
    )
    return engine


def set_learning_rate(engine: Any, train: TrainConfig, step: int, steps: int) -> float:
    """Set the learning rate of optimizer step `step` (from 0) of `steps`: a function of the step, so it needs no state."""
    scale = lr_scale(step, total_steps=steps, warmup_steps=round(train.warmup_ratio * steps), schedule=train.schedule)
    learning_rate: float = train.learning_rate * scale
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    return learning_rate


def set_lambda(engine: Any, train: TrainConfig, step: int, steps: int) -> float:
    """Set the weight of the odds-ratio term for optimizer step `step` (from 0) of `steps`: on a line up to train.lambda."""
    rising = round(train.lambda_warmup * steps)
    lam = train.lam * min(1.0, (step + 1) / rising) if rising else train.lam
    model: OrpoModel = engine.module
    if isinstance(model.objective, Orpo):
        model.objective = replace(model.objective, lam=lam)
    return lam


def train_step(
    engine: Any, groups: Sequence[TokenGroup], real_rows: int, micro_batch: int, device: torch.device
) -> torch.Tensor:
    """One optimizer step on this rank's `groups`; every rank calls it with equally many.

    Args:
        real_rows: rows of weight 1 in the global batch, over all ranks.
        micro_batch: groups of one forward and backward pass.

    Returns:
        The sums of `stats.NAMES` over this rank's micro-batches, on the CPU.

    Raises:
        NonFiniteLossError: before the step is taken.
    """
    model: OrpoModel = engine.module
    parts = [groups[at : at + micro_batch] for at in range(0, len(groups), micro_batch)]
    total: torch.Tensor | None = None
    for number, part in enumerate(parts):
        batch = model.batch(part, real_rows).to(device)
        engine.set_gradient_accumulation_boundary(number == len(parts) - 1)
        loss, sums, pair_losses = engine(batch)
        if not bool(torch.isfinite(pair_losses).all()):
            broken = sorted(
                {name for name, value in zip(batch.names, pair_losses, strict=True) if not value.isfinite()}
            )
            raise NonFiniteLossError(f"the loss is not finite for prompts {', '.join(broken)}; nothing was updated")
        # DeepSpeed averages gradients over the ranks; the loss is already this rank's share of the global one.
        engine.backward(loss * dist.get_world_size(), scale_wrt_gas=False)
        total = sums if total is None else total + sums
    engine.step()
    assert total is not None
    return total.cpu()
