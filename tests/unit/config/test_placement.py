"""Which nodes each group of actors may use, and shares of GPUs that cannot work."""

from typing import Any

import pytest

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.errors import ConfigError


def config(
    *, engine: dict[str, Any] | None = None, workers: int = 2, transport: str = "filesystem", **resources: Any
) -> RunConfig:
    return parse_config(
        {
            "task": {"name": "arithmetic"},
            "teacher": {"model": "models/teacher", "engine": engine or {}},
            "student": {"model": "models/student", "engine": engine or {}},
            "train": {"workers": workers},
            "resources": resources,
            "storage": {"transport": transport},
        }
    )


def test_any_node_will_do_where_nothing_is_said() -> None:
    resources = config().resources
    assert [resources.node_labels(role) for role in ("teacher", "sampler", "evaluator", "trainer")] == [{}] * 4


def test_labels_and_the_type_of_gpu_are_one_selector() -> None:
    resources = config(trainer_labels={"orpo-ray.io/role": "trainer"}, trainer_accelerator="H100").resources
    # The label that Ray gives a node by itself: ray._raylet.RAY_NODE_ACCELERATOR_TYPE_KEY.
    assert resources.node_labels("trainer") == {"orpo-ray.io/role": "trainer", "ray.io/accelerator-type": "H100"}


def test_the_evaluator_follows_the_samplers_until_told_otherwise() -> None:
    samplers = {"sampler_labels": {"pool": "a"}, "sampler_accelerator": "L4"}
    assert config(**samplers).resources.node_labels("evaluator") == {"pool": "a", "ray.io/accelerator-type": "L4"}
    assert config(**samplers, evaluator_labels={}).resources.node_labels("evaluator") == {}
    assert config(**samplers, evaluator_labels={"pool": "b"}).resources.node_labels("evaluator") == {"pool": "b"}


@pytest.mark.parametrize("value", ["spot", "!spot", "in(H100, A100)", "in(H100,A100)", "!in(a, b)", "v1.2_x-3"])
def test_selectors_that_ray_takes(value: str) -> None:
    from ray._private.label_utils import validate_label_selector

    assert validate_label_selector({"pool": value}) is None
    assert config(sampler_labels={"pool": value}).resources.sampler_labels == {"pool": value}


@pytest.mark.parametrize("value", ["", "-spot", "spot_", "in()", "in(a", "!!a", "a b", "a" * 64])
def test_selectors_that_ray_refuses_are_refused_at_once(value: str) -> None:
    from ray._private.label_utils import validate_label_selector

    if value:  # Ray lets an empty value through, which no node has
        assert validate_label_selector({"pool": value}) is not None
    with pytest.raises(ConfigError, match=r"resources\.sampler_labels: .* is no selector of label pool"):
        config(sampler_labels={"pool": value})


def test_a_name_that_is_no_labels_is_named() -> None:
    with pytest.raises(ConfigError, match=r"resources\.trainer_labels: `a b` is no label's name"):
        config(trainer_labels={"a b": "c"})


def test_a_colocated_gpu_is_not_overdrawn() -> None:
    shared = {"sampler_gpus": 0.4, "evaluator_gpus": 0, "trainer_gpus": 0.6, "teacher_gpus": 1}
    config(engine={"gpu_memory": 0.4}, **shared)
    with pytest.raises(ConfigError, match=r"student\.engine\.gpu_memory: 0\.9 .* resources\.sampler_gpus gives the "):
        config(**shared)


def test_two_ranks_never_share_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"resources\.trainer_gpus: 0\.5 puts two of train\.workers 2 on one GPU"):
        config(trainer_gpus=0.5)
    config(trainer_gpus=0.5, workers=1)
    config(trainer_gpus=0.6)


def test_weights_are_not_sent_by_nccl_within_one_gpu() -> None:
    shared = {"sampler_gpus": 0.4, "evaluator_gpus": 0, "trainer_gpus": 0.6, "teacher_gpus": 1}
    with pytest.raises(ConfigError, match=r"storage\.transport: nccl does not send within one GPU, .* take `shm`"):
        config(engine={"gpu_memory": 0.4}, transport="nccl", **shared)
    config(transport="nccl", sampler_gpus=1, evaluator_gpus=1, trainer_gpus=1, teacher_gpus=1)


def test_an_engine_has_the_gpus_that_it_is_spread_over() -> None:
    with pytest.raises(ConfigError) as refused:
        config(engine={"tensor_parallel": 2}, sampler_gpus=1, teacher_gpus=4, evaluator_gpus=2)
    assert refused.value.problems == [
        "resources.sampler_gpus: 1, but student.engine.tensor_parallel spreads the engine over 2 GPUs; take 2",
        "resources.teacher_gpus: 4, but teacher.engine.tensor_parallel spreads the engine over 2 GPUs; take 2",
    ]


def test_gpus_are_a_share_or_whole() -> None:
    with pytest.raises(ConfigError, match=r"resources\.sampler_gpus: 1\.5 GPUs; take a share below 1, or whole GPUs"):
        config(sampler_gpus=1.5)
