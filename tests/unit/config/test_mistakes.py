"""Every mistake that a configuration can hold, in the words that its author reads."""

from typing import Any

import pytest

from orpo_ray.config import parse_config
from orpo_ray.errors import ConfigError
from tests.unit.config.data import changed

# What is set, and the one sentence about it.
ONE_OPTION: list[tuple[dict[str, Any], str]] = [
    ({"policy.phi": 1.5}, "policy.phi: 1.5 given; take a number from 0 to 1 (probability)"),
    ({"policy.phi": -0.1}, "policy.phi: -0.1 given; take a number from 0 to 1 (probability)"),
    ({"policy.phi": "half"}, 'policy.phi: "half" given; take a number from 0 to 1 (probability)'),
    ({"policy.phi": float("nan")}, "policy.phi: NaN given; take a number from 0 to 1 (probability)"),
    ({"sampling.k": 0}, "sampling.k: 0 given; take a whole number from 1 on (traces)"),
    ({"sampling.k": 1.5}, "sampling.k: 1.5 given; take a whole number from 1 on (traces)"),
    ({"sampling.k": None}, "sampling.k: null given; take a whole number from 1 on (traces)"),
    ({"sampling.temperature": 0}, "sampling.temperature: 0 given; take a number above 0 up to 2"),
    ({"train.learning_rate": 0}, "train.learning_rate: 0 given; take a number above 0"),
    ({"train.lambda": -1}, "train.lambda: -1 given; take a number from 0 on"),
    ({"train.zero_stage": 4}, "train.zero_stage: 4 given; take 1, 2 or 3"),
    ({"train.precision": "fp16"}, 'train.precision: "fp16" given; take fp32 or bf16'),
    ({"train.warmup_ratio": 1}, "train.warmup_ratio: 1 given; take a number from 0 and below 1 (share)"),
    ({"train.lora": 8}, "train.lora: 8 given; take a section with options, or leave `lora` out"),
    (
        {"train.lora": {"target_modules": 3}},
        "train.lora.target_modules: 3 given; take all-linear or a list of names",
    ),
    ({"train.lora": {"rank": 0}}, "train.lora.rank: 0 given; take a whole number from 1 to 512"),
    ({"train.deepspeed": [1]}, "train.deepspeed: [1] given; take a mapping"),
    ({"task.train_size": 0}, "task.train_size: 0 given; take a whole number from 1 on (prompts)"),
    ({"teacher.backend": "vllm"}, 'teacher.backend: "vllm" given; take serve, openai or recorded'),
    ({"tracking.tensorboard": "perhaps"}, 'tracking.tensorboard: "perhaps" given; take true or false'),
    ({"seed": -1}, "seed: -1 given; take a whole number from 0 and below 2147483648"),
    ({"name": 5}, "name: 5 given; take text"),
    (
        {"name": "a/b"},
        "name: \"a/b\" given; a run's name is a directory's name: letters, digits, dot, dash and underscore",
    ),
    ({"policy": 3}, "policy: 3 given; take a section with options, or leave `policy` out"),
    ({"policy": None}, "policy: null given; take a section with options, or leave `policy` out"),
    (
        {"train.objective": "dpo"},
        'train.objective: "dpo" given; take orpo, sft, none, or a class of your own as `package.module:Class`',
    ),
    ({"train.betas": [0.9]}, "train.betas: [0.9] given; take a list of 2 numbers"),
    (
        {"train.betas": [0.9, 1.0]},
        "train.betas: [0.9, 1.0] given; each is a decay rate, from 0 to below 1, as [0.9, 0.999]",
    ),
]

UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"train.lora": {"alfa": 8}}, "train.lora.alfa: unknown option; did you mean `alpha`?"),
    ({"trian.epochs": 3}, "trian: unknown option; did you mean `train`?"),
    ({"train.epoch": 3}, "train.epoch: unknown option; did you mean `epochs`?"),
    (
        {"student.engine.prefil_tokens": 9},
        "student.engine.prefil_tokens: unknown option; did you mean `prefill_tokens`?",
    ),
    (
        {"policy.interval": 3},
        "policy.interval: unknown option; known here are phi, phi_schedule, phi_end, phi_gain, phi_target, phi_min, phi_max, refresh, max_staleness",
    ),
    (
        {"policy.int": 3},
        "policy.int: unknown option; known here are phi, phi_schedule, phi_end, phi_gain, phi_target, phi_min, phi_max, refresh, max_staleness",
    ),
    (
        {"storage.mirror": "bucket/prefix"},
        'storage.mirror: "bucket/prefix" given; is no URL of a place that keeps files; '
        "write s3://bucket/prefix, gs://bucket/prefix or file:///directory",
    ),
    (
        {"storage.mirror": "s3://"},
        'storage.mirror: "s3://" given; is no URL of a place that keeps files; '
        "write s3://bucket/prefix, gs://bucket/prefix or file:///directory",
    ),
    (
        {"storage.literal[x]": 3},
        "storage.literal[x]: unknown option; known here are path, transport, mirror, mirror_every_s",
    ),
]

BETWEEN_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"export.lora": "adapter"}, "export.lora: `adapter` needs train.lora, as {}; without it there is no adapter"),
    ({"policy.refresh": 0}, "policy.refresh: 0 steps; take `epoch` or a whole number from 1 on"),
    (
        {"train.global_batch": 33},
        "train.global_batch: 33 cannot be shared equally by train.workers = 2; take a multiple of 2, as 34",
    ),
    (
        {"train.deepspeed": {"zero_optimization": {"stage": 3}}},
        "train.deepspeed: zero_optimization.stage is 3, but it is set by train.zero_stage; leave it out, or give 2",
    ),
    (
        {"train.offload": "optimizer"},
        "train.offload: 'optimizer' needs a GPU to offload from, and the trainers have none; give none",
    ),
    (
        {"train.offload": "optimizer_and_parameters", "resources.trainer_gpus": 1},
        "train.offload: parameters can be offloaded in ZeRO stage 3 only, not 2",
    ),
    (
        {"resources.block_rows": 5},
        "resources.block_rows: 5 × train.workers 2 does not divide train.global_batch 32, which would hang the stream; "
        "fitting are 1, 2, 4, 8, 16",
    ),
    (
        {"student.engine.max_model_len": 256},
        "sampling.max_tokens: 256 leaves no room for a prompt in student.engine.max_model_len 256; take fewer tokens or "
        "a longer context",
    ),
    (
        {"eval.max_tokens": 1024, "teacher.engine.max_model_len": 2048},
        "eval.max_tokens: 1024 leaves no room for a prompt in student.engine.max_model_len 1024; take fewer tokens or a "
        "longer context",
    ),
    (
        {"student.engine.prefill_tokens": 512},
        "student.engine.prefill_tokens: 512 is less than student.engine.max_model_len 1024, so a long prompt could not be "
        "prefilled whole; take at least that many",
    ),
    ({"teacher.model": None}, "teacher.model: not set, but teacher.backend `serve` needs it"),
    ({"teacher.backend": "openai"}, "teacher.base_url: not set, but teacher.backend `openai` needs it"),
    ({"teacher.backend": "recorded"}, "teacher.path: not set, but teacher.backend `recorded` needs it"),
    (
        {"train.workers_min": 3},
        "train.workers_min: 3 is more than train.workers 2; take at most as many",
    ),
    (
        {"train.workers": 6, "train.workers_min": 4, "train.global_batch": 18},
        "train.global_batch: 18 cannot be shared equally by train.workers_min = 4; take a multiple of 4, as 20",
    ),
    (
        {"train.workers": 2, "train.workers_min": 1, "train.global_batch": 24, "resources.block_rows": 24},
        "resources.block_rows: 24 × train.workers 2 does not divide train.global_batch 24, which would hang the stream; "
        "fitting are 1, 2, 3, 4, 6, 12",
    ),
    (
        {"resources.samplers_min": 2},
        "resources.samplers_min: 2 is more than resources.samplers 1; take at most as many",
    ),
    (
        {"teacher.serve.min_replicas": 3},
        "teacher.serve.max_replicas: 1 is less than teacher.serve.min_replicas 3; take at least as many",
    ),
    (
        {"export.select": "best"},
        "export.select: `best` needs a validation split; set task.validation_size or validation_path",
    ),
    (
        {"policy.phi_schedule": "linear"},
        "policy.phi_end: not set, but policy.phi_schedule `linear` ends there",
    ),
    (
        {"policy.phi_end": 0.2},
        "policy.phi_end: 0.2 means nothing with policy.phi_schedule `constant`; take linear or cosine, or leave it out",
    ),
    (
        {"policy.phi_schedule": "adaptive", "policy.phi": 1.0},
        "policy.phi: 1 is not between policy.phi_min 0.1 and policy.phi_max 0.9, where `adaptive` keeps it",
    ),
    (
        {"negatives.source": "teacher"},
        "policy.phi: 0.5 asks for live negatives, which negatives.source `teacher` does not give; set it to 0",
    ),
    (
        {"negatives.source": "none", "policy.phi": 0},
        "negatives.source: `none` leaves the objective `orpo` nothing to contrast; take student or teacher, or "
        "train.objective sft",
    ),
    (
        {"recipe": "off_policy", "policy.phi": 0.3},
        "policy.phi: 0.3 given, but recipe `off_policy` is policy.phi 0; leave it out, or take another recipe",
    ),
    (
        {"recipe": "single_cot", "positives.per_prompt": 4},
        "positives.per_prompt: 4 given, but recipe `single_cot` is positives.per_prompt 1; leave it out, or take another "
        "recipe",
    ),
    (
        {"recipe": "mixed_policy", "policy.phi": 1},
        "policy.phi: 1 mixes nothing; take recipe `on_policy`, or φ between 0 and 1",
    ),
    (
        {"recipe": "mixed_polcy"},
        'recipe: "mixed_polcy" given; take zero_shot_cot, single_cot, diverse_cot, off_policy, on_policy, mixed_policy or '
        "teacher_negatives",
    ),
    (
        {"limits.gate_s": 10},
        "limits: gate_s is 10 but reload_s is 300: the gate waits for reloads elsewhere, so give it at least as long",
    ),
]


@pytest.mark.parametrize(("changes", "sentence"), [*ONE_OPTION, *UNKNOWN, *BETWEEN_OPTIONS])
def test_one_mistake_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(changed(changes))
    assert refused.value.problems == [sentence]
    assert refused.value.exit_code == 2
    assert str(refused.value) == f"configuration: 1 mistake\n  - {sentence}"


@pytest.mark.parametrize("value", ["step", 2.5, [1]])
def test_a_value_that_fits_no_type_of_a_union_is_one_mistake(value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(changed({"policy.refresh": value}))
    assert len(refused.value.problems) == 1
    assert refused.value.problems[0].endswith("given; take epoch or a whole number")


def test_what_is_required_is_named() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config({"student": {}})
    assert refused.value.problems[:2] == [
        "task: missing, and it has no default",
        "student.model: missing, and it has no default",
    ]


def test_every_mistake_is_named_at_once_those_between_sections_too() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(
            changed({"policy.phi": 2, "sampling.k": 0, "trian.x": 1, "train.global_batch": 33, "teacher.model": None})
        )
    assert [problem.split(":")[0] for problem in refused.value.problems] == [
        "sampling.k",
        "policy.phi",
        "trian",
        "train.global_batch",
        "teacher.model",
    ]


def test_no_mistake_is_made_up_from_an_option_that_is_wrong_itself() -> None:
    """33 rows cannot be shared by the default's two workers, but that is not what was asked."""
    with pytest.raises(ConfigError) as refused:
        parse_config(changed({"train.workers": "three", "train.global_batch": 33}))
    assert refused.value.problems == ['train.workers: "three" given; take a whole number from 1 on (workers)']


def test_mistakes_beside_a_missing_section_are_found() -> None:
    data = changed({"policy.phi": 2, "train.global_batch": 33})
    del data["student"]
    with pytest.raises(ConfigError) as refused:
        parse_config(data)
    assert [problem.split(":")[0] for problem in refused.value.problems] == [
        "student",
        "policy.phi",
        "train.global_batch",
    ]


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(changed({"train.epochs": "x" * 1000}))
    assert len(refused.value.problems[0]) < 150


def test_the_error_travels_between_processes() -> None:
    import pickle

    error = ConfigError(["policy.phi: 1.5 given"], "toy.yaml")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
