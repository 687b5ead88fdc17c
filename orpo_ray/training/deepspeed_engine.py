"""The DeepSpeed engine round the student: start it, set its learning rate, take one optimizer step.

Legend: R ranks, M micro-steps, X statistics and seconds side by side.
"""
# ruff: noqa: N815 - fields carry the legend's shape suffixes

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from orpo_ray.config import RunConfig
from orpo_ray.config.deepspeed_json import deepspeed_config_of
from orpo_ray.config.training import TrainConfig
from orpo_ray.errors import OrpoRayError
from orpo_ray.training import stats
from orpo_ray.training.batching import TokenGroup
from orpo_ray.training.extensions import build_comm_operator
from orpo_ray.training.lora import adapt
from orpo_ray.training.model import OrpoModel, load_student
from orpo_ray.training.objective import Orpo, load_objective
from orpo_ray.training.schedule import lr_scale


class NonFiniteLossError(OrpoRayError):
    """Loss or gradient of an optimizer step are not finite; the message names the prompts, as far as they are known."""


def not_finite_error(step: int, not_finite: Sequence[str], prompts: Sequence[str]) -> NonFiniteLossError:
    """
    Args:
        step: from 1.
        not_finite: prompts whose loss is not finite.
        prompts: all of the step, for a gradient that is not finite though every loss is.
    """
    if not_finite:
        text = f"the loss is not finite for prompts {_listed(not_finite)}"
    else:
        text = f"the gradient is not finite, though every loss is; the step's prompts are {_listed(prompts)}"
    return NonFiniteLossError(f"step {step}: {text}; nothing was updated")


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def start(config: RunConfig, initial: str, *, load_universal: bool = False) -> Any:
    """A DeepSpeed engine on the student's initial weights.

    Gradients are accumulated by hand (`train_step`), so that a step may have any number of micro-batches.

    Args:
        load_universal: it will load a checkpoint that another number of ranks wrote.
    """
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    train = config.train
    build_comm_operator(config.limits.start_s)
    student = load_student(initial)
    if train.gradient_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    trained = student if train.lora is None else adapt(student, train.lora)
    # Modules come in inference mode, in which gradient checkpointing and the adapters' dropout do nothing.
    model = OrpoModel(trained.train(), load_objective(train.objective, train.lam), train.sft_scope)
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=deepspeed_config_of(train, on_cpu=on_cpu, load_universal=load_universal),
    )
    if train.zero_stage == 3 and model.scorer is not None:
        # DeepSpeed finds an external parameter itself, but only when it is used while partitioned. A loaded checkpoint
        # leaves small ones whole; found in the trace of a later step, after a publication, it would end the run.
        for parameter in model.scorer.own_parameters():
            deepspeed.zero.register_external_parameter(model.scorer, parameter)
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


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, the same on every rank.

    Attributes:
        sums: `stats.NAMES` of the global batch, on the CPU.
        applied: False where loss or gradient were not finite: nothing was updated, and no gradient is left.
        not_finite: prompts whose loss was not finite, sorted. None of them, and `applied` False: the gradient was.
        grad_norm: before clipping; NaN where nothing was updated.
        seconds_RM: of each rank's forward pass in each micro-step.
    """

    sums: Tensor
    applied: bool
    not_finite: tuple[str, ...]
    grad_norm: float
    seconds_RM: Tensor

    @property
    def time_balance(self) -> float:
        """Slowest rank over the mean rank, as a mean over micro-steps that weighs each by its length; 1 is perfect."""
        return float(self.seconds_RM.max(0).values.sum() / self.seconds_RM.mean(0).sum())


def train_step(
    engine: Any, micro_batches: Sequence[Sequence[TokenGroup]], real_rows: int, device: torch.device
) -> StepResult:
    """One optimizer step; every rank calls it with its own micro-batches, equally many.

    A loss that is not finite does not raise here: the ranks beside this one would wait for it in a collective of their
    backward pass. It makes the gradient NaN instead, and DeepSpeed, which has every rank know the gradient's norm
    before it updates, passes the step over on all of them.

    Args:
        micro_batches: this rank's share of the global batch; one may be empty.
        real_rows: rows of weight 1 in the global batch, over all ranks.
    """
    model: OrpoModel = engine.module
    ranks = dist.get_world_size()
    sums: list[Tensor] = []
    clocks: list[Callable[[], float]] = []
    losses: list[tuple[tuple[str, ...], Tensor]] = []
    for number, groups in enumerate(micro_batches):
        batch = model.batch(groups, real_rows).to(device)
        engine.set_gradient_accumulation_boundary(number == len(micro_batches) - 1)
        stop = _stopwatch(device)
        loss, batch_sums, pair_losses = engine(batch)
        clocks.append(stop())
        poison = torch.where(pair_losses.isfinite().all(), 1.0, math.nan)
        # DeepSpeed averages gradients over the ranks; the loss is already this rank's share of the global one.
        engine.backward(loss * poison * ranks, scale_wrt_gas=False)
        sums.append(batch_sums)
        losses.append((batch.names, pair_losses))
    engine.step()
    applied: bool = engine.was_step_applied()
    own = torch.cat(
        [stats.combined(torch.stack(sums)).to(device), torch.tensor([clock() for clock in clocks]).to(device)]
    )
    gathered_RX = own.new_empty((ranks, len(own)))
    dist.all_gather(list(gathered_RX.unbind()), own)
    gathered_RX = gathered_RX.cpu()
    norm = engine.get_global_grad_norm() if applied else None
    return StepResult(
        sums=stats.combined(gathered_RX[:, : len(stats.NAMES)]),
        applied=applied,
        not_finite=() if applied else _not_finite(losses, ranks),
        grad_norm=float(norm) if norm is not None else math.nan,
        seconds_RM=gathered_RX[:, len(stats.NAMES) :],
    )


def _not_finite(losses: Sequence[tuple[tuple[str, ...], Tensor]], ranks: int) -> tuple[str, ...]:
    """The prompts of all ranks whose loss is not finite; every rank calls it."""
    own = [name for names, values in losses for name, value in zip(names, values.tolist(), strict=True)
           if not math.isfinite(value)]  # fmt: skip
    found: list[list[str]] = [[]] * ranks
    dist.all_gather_object(found, own)
    return tuple(sorted({name for names in found for name in names}))


def _stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Starts now. Called, it stops; what that returns gives the seconds, once the device has come so far."""
    if device.type == "cuda":
        # Events are recorded in the stream: nothing waits for the device in the middle of a step.
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()

        def stop_on_device() -> Callable[[], float]:
            last.record()

            def seconds() -> float:
                last.synchronize()
                elapsed: float = first.elapsed_time(last)
                return elapsed / 1000

            return seconds

        return stop_on_device
    start = time.perf_counter()

    def stop() -> Callable[[], float]:
        elapsed = time.perf_counter() - start
        return lambda: elapsed

    return stop
