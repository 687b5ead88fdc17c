"""What a run will need, counted by hand."""

from pathlib import Path
from typing import Any

import pytest

import orpo_ray
from orpo_ray.config import RunConfig, parse_config
from orpo_ray.deploy.plan import amounts_of, layout_of, make_plan, trainer_bytes
from orpo_ray.phases.fit import ClusterShape, NodeGroup

GIB = 2**30
SMALL = ClusterShape("two cores", (NodeGroup("two cores", 1, 2, 0, 24 * GIB),))


def config(**sections: dict[str, Any]) -> RunConfig:
    data: dict[str, Any] = {
        "task": {"name": "arithmetic", "train_size": 100, "test_size": 10},
        "teacher": {"model": "models/teacher"},
        "student": {"model": "models/student"},
        "sampling": {"k": 4, "max_tokens": 50},
        "train": {"epochs": 3, "global_batch": 32, "workers": 2, "pairs_per_prompt": 2},
    }
    return parse_config({name: {**data.get(name, {}), **sections.get(name, {})} for name in {*data, *sections}})


def test_amounts_counted_by_hand() -> None:
    amounts = amounts_of(config(), parameters=1000)
    assert amounts is not None
    assert (amounts.teacher_traces, amounts.teacher_tokens) == (100 * 4, 100 * 4 * 50 + 10 * 50)
    assert (amounts.initial_traces, amounts.initial_tokens) == (400, 400 * 50)
    # Half of 3 × 100 prompt-epochs are live.
    assert (amounts.live_traces, amounts.live_tokens) == (150 * 4, 150 * 4 * 50)
    assert amounts.pairs == 100 * 3 * 2
    # 100 prompts are 4 batches of 32, the last filled up; a version an epoch.
    assert (amounts.steps, amounts.versions) == (12, 3)
    assert (amounts.evaluations, amounts.evaluation_tokens) == (4, 4 * 10 * 50)


def test_the_disk_holds_checkpoints_versions_and_traces(tmp_path: Path) -> None:
    amounts = amounts_of(config(), parameters=10**9)
    assert amounts is not None
    # Three checkpoints of 16 bytes a parameter, three versions and the export in 16 bits; half a GiB of other things.
    models = 3 * 16 * 10**9 + 4 * 2 * 10**9 + GIB // 2
    assert amounts.disk_bytes == models + (400 + 400 + 600) * 50 * 8
    unknown = amounts_of(config(), parameters=0)
    assert unknown is not None
    assert unknown.disk_bytes is None


def test_recorded_traces_cost_no_tokens() -> None:
    amounts = amounts_of(config(teacher={"backend": "recorded", "path": "x.jsonl", "model": None}), 1)
    assert amounts is not None
    assert amounts.teacher_tokens == 0


def test_several_answers_of_the_first_student_and_the_last_cost_tokens() -> None:
    amounts = amounts_of(config(eval={"k": 8}), 1)
    assert amounts is not None
    assert amounts.evaluation_tokens == 4 * 10 * 50 + 2 * 8 * 10 * 50


def test_a_recipe_costs_what_it_samples() -> None:
    sft = amounts_of(config(train={"objective": "sft"}), 1)
    assert sft is not None
    assert (sft.initial_traces, sft.live_traces, sft.teacher_traces) == (0, 0, 400)
    # φ 0, 0.5, 1 over three epochs of 100 prompts: as many live prompts as at 0.5 throughout.
    rising = amounts_of(config(policy={"phi": 0.0, "phi_schedule": "linear", "phi_end": 1.0}), 1)
    assert rising is not None
    assert rising.live_traces == 150 * 4
    untrained = config(train={"objective": "none"})
    nothing = amounts_of(untrained, 1)
    assert nothing is not None
    assert (nothing.teacher_tokens, nothing.initial_tokens, nothing.steps, nothing.evaluations) == (0, 0, 0, 1)
    assert make_plan(untrained, SMALL, own_cluster=True).phases.keys() == {"EVALUATE"}


def test_rows_that_would_have_to_be_fetched_are_not_counted() -> None:
    assert amounts_of(config(task={"name": "gsm8k", "train_size": None}), 1) is None


def test_a_run_on_this_machine_shares_its_cores_but_not_its_memory() -> None:
    assert make_plan(config(), SMALL, own_cluster=True).problems == {}
    plan = make_plan(config(resources={"samplers": 20}), SMALL, own_cluster=True)
    assert plan.problems.keys() == {"SEED", "DISTILL"}
    assert plan.problems["SEED"][0].endswith("2.5 GiB are not left beside the others on the 1 node that it may use")


def test_on_a_cluster_the_driver_wants_its_cpu_too() -> None:
    """DISTILL: a sampler, the evaluator, two workers, a data task, the driver: six CPUs."""
    assert make_plan(config(), ClusterShape("c", (NodeGroup("n", 1, 6),)), own_cluster=False).problems == {}
    plan = make_plan(config(), ClusterShape("c", (NodeGroup("n", 1, 5),)), own_cluster=False)
    assert plan.problems.keys() == {"DISTILL"}
    assert plan.to_json()["fits"] is False


def test_a_replica_over_four_gpus_is_four_bundles() -> None:
    four = config(teacher={"engine": {"tensor_parallel": 4}}, resources={"teacher_gpus": 4})
    two_nodes = ClusterShape("c", (NodeGroup("n", 2, 16, 2),))
    assert make_plan(four, two_nodes, own_cluster=False).problems == {}
    strict = config(
        teacher={"engine": {"tensor_parallel": 4}}, resources={"teacher_gpus": 4, "teacher_strategy": "STRICT_PACK"}
    )
    assert make_plan(strict, two_nodes, own_cluster=False).problems == {
        "TEACH": ["teacher replica: no one node has 4 times 0.25 CPUs, 1 GPU, as STRICT_PACK wants"]
    }


@pytest.mark.parametrize(
    ("resources", "layout"),
    [
        ({}, "cpu"),
        ({"sampler_gpus": 1, "trainer_gpus": 1}, "disaggregated"),
        ({"sampler_gpus": 0.4, "trainer_gpus": 0.6}, "colocated"),
    ],
)
def test_the_layout_is_named(resources: dict[str, Any], layout: str) -> None:
    engine = {"engine": {"gpu_memory": 0.4}}
    assert layout_of(config(resources=resources, student=engine)) == layout


def test_a_colocated_run_fits_on_one_gpu() -> None:
    shared = config(
        student={"engine": {"gpu_memory": 0.2}},
        train={"workers": 1, "global_batch": 32},
        resources={"sampler_gpus": 0.2, "evaluator_gpus": 0.2, "trainer_gpus": 0.6, "teacher_gpus": 1},
    )
    node = ClusterShape("c", (NodeGroup("n", 1, 8, 1),))
    assert make_plan(shared, node, own_cluster=False).problems == {}


@pytest.mark.parametrize(("stage", "bytes_a_parameter"), [(1, 2 + 2 + 12 / 4), (2, 2 + 14 / 4), (3, 16 / 4)])
def test_zero_shares_what_the_paper_says(stage: int, bytes_a_parameter: float) -> None:
    """Rajbhandari et al. 2020, section 3: 16 bytes a parameter in mixed precision."""
    sharded = config(train={"zero_stage": stage, "workers": 4, "precision": "bf16"})
    assert trainer_bytes(sharded, 1000) == 1000 * bytes_a_parameter


def test_an_optimizer_that_a_gpu_cannot_hold_is_named() -> None:
    gpus = ClusterShape("c", (NodeGroup("n", 1, 32, 8, None, 24 * GIB),))
    seven = config(resources={"trainer_gpus": 1, "sampler_gpus": 1, "evaluator_gpus": 1, "teacher_gpus": 1})
    problems = make_plan(seven, gpus, own_cluster=False, parameters=7 * 10**9).problems
    (problem,) = problems["DISTILL"]
    # Stage 2 on two workers: 2 + 14 / 2 bytes a parameter.
    assert problem.startswith("train worker: weights, gradients and optimizer take 58.7 GiB of its 24.0 GiB")


def test_a_students_own_files_say_how_large_it_is() -> None:
    student = Path(orpo_ray.__file__).parent / "demo" / "models" / "student"
    plan = make_plan(config(student={"model": str(student)}), SMALL, own_cluster=True)
    assert plan.student_parameters == 712_064
    assert plan.amounts is not None
    assert plan.amounts.disk_bytes is not None
