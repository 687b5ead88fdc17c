"""Our options become DeepSpeed's, and a contradiction is named by its key."""

import math
from typing import Any

import pytest

from orpo_ray.config.deepspeed_json import deepspeed_config
from orpo_ray.errors import ConfigError
from orpo_ray.training.schedule import lr_scale


def config(**changes: Any) -> dict[str, Any]:
    return deepspeed_config(**{"zero_stage": 2, "precision": "bf16", "learning_rate": 1e-5, **changes})


def test_options_arrive() -> None:
    made = config(zero_stage=3, precision="fp32", weight_decay=0.1, max_grad_norm=0.5)
    assert made["zero_optimization"]["stage"] == 3
    assert made["zero_optimization"]["gather_16bit_weights_on_model_save"] is True
    assert made["bf16"]["enabled"] is False
    assert made["gradient_clipping"] == 0.5
    assert made["optimizer"]["params"] == {
        "lr": 1e-5, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1, "torch_adam": True
    }  # fmt: skip


def test_a_users_json_is_merged() -> None:
    extra = {
        "zero_optimization": {"reduce_bucket_size": 1000, "stage": 2},
        "communication_data_type": "fp32",
        "optimizer": {"params": {"lr": "auto"}},
        "steps_per_print": 10,
    }
    made = config(user=extra)
    assert made["zero_optimization"]["reduce_bucket_size"] == 1000
    assert made["zero_optimization"]["contiguous_gradients"] is True
    assert made["communication_data_type"] == "fp32"
    assert made["optimizer"]["params"]["lr"] == 1e-5
    assert made["steps_per_print"] == 10


def test_every_contradiction_is_named() -> None:
    extra = {
        "zero_optimization": {"stage": 3},
        "train_batch_size": 64,
        "scheduler": {"type": "WarmupLR", "params": {}},
        "fp16": {"enabled": True},
        "optimizer": {"params": {"lr": 1e-3}},
    }
    with pytest.raises(ConfigError) as caught:
        config(user=extra)
    message = str(caught.value)
    assert len(caught.value.problems) == 6
    for key, owner in {
        "zero_optimization.stage is 3": "train.zero_stage; leave it out, or give 2",
        "train_batch_size is 64": "train.global_batch; leave it out",
        "scheduler.type is 'WarmupLR'": "train.schedule; leave it out",
        "fp16.enabled is True": "train.precision; leave it out, or give False",
        "optimizer.params.lr is 0.001": "train.learning_rate; leave it out, or give 1e-05",
    }.items():
        assert any(key in line and line.endswith(owner) for line in caught.value.problems), message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"offload": "optimizer"}, "needs a GPU"),
        ({"offload": "optimizer_and_parameters", "on_cpu": False}, "ZeRO stage 3 only, not 2"),
    ],
)
def test_offloading_that_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(**changes)


def test_offloading() -> None:
    zero = config(zero_stage=3, on_cpu=False, offload="optimizer_and_parameters")["zero_optimization"]
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "cpu"


def test_schedules() -> None:
    linear = [lr_scale(step, 10, 2, "linear") for step in (0, 1, 2, 6, 9, 10)]
    assert linear == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.125, 0.0])
    cosine = [lr_scale(step, 8, 0, "cosine") for step in (0, 2, 4, 8, 9)]
    assert cosine == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, 0.0, 0.0])
    assert {lr_scale(step, 3, 0, "constant") for step in range(9)} == {1.0}


def test_every_step_of_a_run_moves_the_weights() -> None:
    for total in range(1, 12):
        for warmup in range(total):
            assert all(0 < lr_scale(step, total, warmup, "cosine") <= 1 for step in range(total))
