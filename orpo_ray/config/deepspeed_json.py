"""From our options to the dict that `deepspeed.initialize(config=...)` takes, with a user's DeepSpeed JSON merged in."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from orpo_ray.config.training import Offload, TrainConfig
from orpo_ray.errors import ConfigError

_OWNERS = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.micro_batch and train.global_batch",
    "managed_gradient_accumulation": "the trainer, which ends the accumulation itself",
    "gradient_allreduce_op": "the trainer, whose loss is normalised over the global batch",
    "gradient_clipping": "train.max_grad_norm",
    "bf16.enabled": "train.precision",
    "bf16.check_grad_overflow": "the trainer, which passes over a gradient that is not finite (train.non_finite)",
    "checkpoint.load_universal": "the trainer, which knows how many workers wrote the checkpoint",
    "fp16.enabled": "train.precision",
    "optimizer.type": "the trainer: AdamW",
    "optimizer.params.lr": "train.learning_rate",
    "optimizer.params.weight_decay": "train.weight_decay",
    "optimizer.params.betas": "train.betas",
    "optimizer.params.eps": "train.epsilon",
    "scheduler": "train.schedule",
    "zero_optimization.compute_grad_norm": "the trainer, which passes over a gradient that is not finite",
    "zero_optimization.offload_optimizer.device": "train.offload",
    "zero_optimization.offload_param.device": "train.offload",
    "zero_optimization.stage": "train.zero_stage",
}
"""Keys that a user's JSON may repeat but not change, and who sets them. Every other key is the user's to change."""


def deepspeed_problems(train: TrainConfig, *, on_cpu: bool) -> list[str]:
    """What `deepspeed_config_of` would refuse, one sentence each; empty where nothing is."""
    try:
        deepspeed_config_of(train, on_cpu=on_cpu)
    except ConfigError as error:
        return error.problems
    return []


def deepspeed_config_of(train: TrainConfig, *, on_cpu: bool, load_universal: bool = False) -> dict[str, Any]:
    """`deepspeed_config` of a run's options.

    Raises:
        ConfigError: as there.
    """
    return deepspeed_config(
        zero_stage=train.zero_stage,
        precision=train.precision,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        betas=train.betas,
        epsilon=train.epsilon,
        max_grad_norm=train.max_grad_norm,
        offload=train.offload,
        on_cpu=on_cpu,
        load_universal=load_universal,
        user=train.deepspeed,
    )


def deepspeed_config(
    *,
    zero_stage: Literal[1, 2, 3],
    precision: Literal["fp32", "bf16"],
    learning_rate: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    max_grad_norm: float = 1.0,
    offload: Offload = "none",
    on_cpu: bool = True,
    load_universal: bool = False,
    user: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The DeepSpeed configuration.

    DeepSpeed averages gradients over ranks, while our loss is each rank's *share* of the global batch's loss: the
    caller multiplies it by the number of ranks. The batch sizes are 1 in DeepSpeed's eyes, and the caller tells it
    where a global batch ends (`set_gradient_accumulation_boundary`): a step may have any number of micro-batches.

    Args:
        learning_rate: AdamW's peak; the caller sets each step's own (`lr_scale`).
        max_grad_norm: global norm that gradients are clipped to.
        offload: what ZeRO keeps in host memory.
        on_cpu: there is no accelerator.
        load_universal: the checkpoint that will be loaded is in DeepSpeed's universal form.
        user: a DeepSpeed JSON to merge in. It may change whatever no option sets; a value "auto" is ours to fill.

    Raises:
        ConfigError: `user` contradicts an option, or the offloading cannot be; every mistake is named.
    """
    optimizer: dict[str, Any] = {
        "lr": learning_rate,
        "betas": list(betas),
        "eps": epsilon,
        "weight_decay": weight_decay,
    }
    if on_cpu:
        # DeepSpeed's own fused Adam is a CUDA kernel, its CPU Adam is for offloading and has to be compiled.
        optimizer["torch_adam"] = True
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": precision == "bf16"},
        "optimizer": {"type": "AdamW", "params": optimizer},
        "zero_optimization": _zero(zero_stage, offload, on_cpu),
        "steps_per_print": 1 << 31,
        "wall_clock_breakdown": False,
    }
    if load_universal:
        ours["checkpoint"] = {"load_universal": True}
    problems = []
    if offload == "optimizer_and_parameters" and zero_stage != 3:
        problems.append(f"train.offload: parameters can be offloaded in ZeRO stage 3 only, not {zero_stage}")
    if offload != "none" and on_cpu:
        problems.append(
            f"train.offload: {offload!r} needs a GPU to offload from, and the trainers have none; give none"
        )
    problems += _contradictions(ours, user or {})
    if problems:
        raise ConfigError(problems)
    return _merged(ours, user or {})


def _zero(stage: int, offload: Offload, on_cpu: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, "contiguous_gradients": True, "overlap_comm": not on_cpu}
    if stage == 3:
        zero["gather_16bit_weights_on_model_save"] = True
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if offload == "optimizer_and_parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return zero


_DEFAULTS = {
    "managed_gradient_accumulation": True,
    "gradient_allreduce_op": "mean",
    "fp16.enabled": False,
    "bf16.check_grad_overflow": True,
    "zero_optimization.compute_grad_norm": True,
}
"""DeepSpeed's own defaults that the trainer rests on."""


def _contradictions(ours: Mapping[str, Any], user: Mapping[str, Any]) -> list[str]:
    problems = []
    for path, value in _leaves(user):
        owner = next((key for key in _OWNERS if path == key or path.startswith(key + ".")), None)
        if owner is None or value == "auto":
            continue
        own = _at(ours, path) if path not in _DEFAULTS else _DEFAULTS[path]
        if own != (list(value) if isinstance(value, tuple) else value):
            right = "leave it out" if own is None else f"leave it out, or give {own!r}"
            problems.append(f"train.deepspeed: {path} is {value!r}, but it is set by {_OWNERS[owner]}; {right}")
    return problems


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _at(tree: Mapping[str, Any], path: str) -> Any:
    value: Any = tree
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _merged(ours: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(ours))
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        elif value != "auto" or key not in result:
            result[key] = copy.deepcopy(value)
    return result
