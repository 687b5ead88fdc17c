"""Which runs an experiment makes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orpo_ray.config.experiment import ExperimentConfig, load_experiment
from orpo_ray.config.fingerprint import what_matters
from orpo_ray.errors import ConfigError
from orpo_ray.experiment.runs import laid_over, planned_runs, student_key, traces_key
from tests.unit.experiment.conftest import EXPERIMENT


def planned(**changes: Any) -> list[Any]:
    return planned_runs(ExperimentConfig.model_validate(EXPERIMENT | changes))


def test_recipes_times_tasks_times_students_times_seeds(experiment: ExperimentConfig) -> None:
    runs = planned_runs(experiment)
    assert len(runs) == len({run.name for run in runs}) == 6 * 2 * 2
    first = runs[0]
    assert (first.name, first.recipe, first.task, first.student, first.seed) == (
        "exp.zero_shot_cot.sums.student.s0", "zero_shot_cot", "sums", "student", 0,
    )  # fmt: skip
    assert {run.config.name for run in runs} == {run.name for run in runs}
    assert [run.seed for run in runs] == [0] * 12 + [1] * 12, "runs that share traces come together"


def test_the_runs_own_phi_is_the_mixed_policys_alone(experiment: ExperimentConfig) -> None:
    phi = {run.recipe: run.config.policy.phi for run in planned_runs(experiment)}
    assert phi == {
        "zero_shot_cot": 0, "single_cot": 0, "diverse_cot": 0, "off_policy": 0, "on_policy": 1, "mixed_policy": 0.4,
    }  # fmt: skip


def test_what_a_recipe_does_not_name_is_the_same_for_all(experiment: ExperimentConfig) -> None:
    flat = [what_matters(run.config) for run in planned_runs(experiment) if run.task == "sums" and run.seed == 0]
    differ = {key for options in flat for key in options if options[key] != flat[0][key]}
    assert differ == {"policy.phi", "train.objective", "negatives.source", "positives.per_prompt"}


def test_a_task_and_a_student_lie_over_the_run() -> None:
    runs = planned(students={"small": {"student": {"model": "models/a"}, "train": {"epochs": 7}}, "big": {}})
    found = {(run.student, run.config.student.model, run.config.train.epochs) for run in runs}
    assert found == {("small", "models/a", 7), ("big", "models/student", 2)}
    assert {(run.task, run.config.task.name) for run in runs} == {("sums", "arithmetic"), ("more", "gsm8k")}


def test_laying_over_changes_neither() -> None:
    under, over = {"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "c": [1]}
    assert laid_over(under, over) == {"a": {"x": 1, "y": 3}, "b": 1, "c": [1]}
    assert (under, over) == ({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "c": [1]})


def test_a_sweep_takes_one_option_over_its_values() -> None:
    sweep = {"option": "sampling.k", "values": [4, 8, 12]}
    runs = planned(recipes=[], tasks={}, seeds=[3], sweeps=[sweep])
    assert [(run.name, run.config.sampling.k, run.recipe) for run in runs] == [
        (f"exp.mixed_policy.arithmetic.student.s3.k-{k}", k, "mixed_policy") for k in (4, 8, 12)
    ]


def test_a_value_that_the_table_has_already_is_not_made_twice() -> None:
    sweep = {"option": "policy.phi", "values": [0.2, 0.4]}
    runs = planned(recipes=["mixed_policy"], tasks={}, seeds=[0], sweeps=[sweep])
    table, low, same = runs
    assert same.name == table.name == same.config.name != low.name
    assert same.swept is not None


def test_a_sweep_without_a_recipe_may_go_from_off_to_on_policy() -> None:
    sweep = {"option": "policy.phi", "values": [0, 0.5, 1], "recipe": None}
    runs = planned(recipes=[], tasks={}, seeds=[0], sweeps=[sweep])
    assert [run.config.policy.phi for run in runs] == [0, 0.5, 1]
    assert runs[0].name == "exp.as-is.arithmetic.student.s0.phi-0"


def test_every_mistake_is_named_once_with_a_run_that_has_it() -> None:
    with pytest.raises(ConfigError) as refused:
        planned(run=laid_over(EXPERIMENT["run"], {"train": {"epochs": 0}, "resources": {"block_rows": 3}}))
    assert refused.value.problems == [
        "train.epochs: 0 given; take a whole number from 1 on (epochs) (in run exp.zero_shot_cot.sums.student.s0)",
        "resources.block_rows: 3 × train.workers 2 does not divide train.global_batch 4, which would hang the stream; "
        "fitting are 1, 2 (in run exp.zero_shot_cot.sums.student.s0)",
    ]


def test_a_sweep_that_contradicts_its_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.phi: 0\.5 given, but recipe `off_policy` is policy\.phi 0"):
        planned(sweeps=[{"option": "policy.phi", "values": [0.5], "recipe": "off_policy"}])


def test_one_storage_for_all() -> None:
    with pytest.raises(ConfigError, match=r"storage\.path: elsewhere, runs; the runs of an experiment share one"):
        planned(tasks={"sums": {}, "more": {"storage": {"path": "elsewhere"}}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipes": ["mixed"]}, "recipes"),
        ({"seeds": [1, 1]}, "seeds: [1, 1] given; 1 stands twice"),
        ({"seeds": []}, "seeds"),
        ({"tasks": {"a b": {}}}, "`a b` becomes part of a run's name"),
        ({"recipe": "mixed_policy"}, "recipe: unknown option; did you mean `recipes`?"),
        ({"sweeps": [{"values": [1]}]}, "sweeps: an entry lacks `option`"),
        ({"sweeps": [{"option": "K!", "values": [1]}]}, "an option is written as in a run's file"),
        ({"parallel": 0}, "parallel: 0 given; take a whole number from 1 on (runs)"),
        ({"name": "a.b"}, 'name: "a.b" given; an experiment\'s name is part of'),
    ],
)
def test_a_mistake_in_the_experiment_itself(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(EXPERIMENT | change))
    with pytest.raises(ConfigError) as refused:
        load_experiment(file)
    assert message in str(refused.value)
    assert len(refused.value.problems) == 1


def test_nothing_to_run() -> None:
    with pytest.raises(ConfigError, match="nothing to run"):
        planned(recipes=[])


def test_a_base_file_lies_under_the_run(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(EXPERIMENT["run"] | {"sampling": {"k": 3}}))
    runs = planned(base=str(base), run={"sampling": {"temperature": 0.5}}, tasks={}, recipes=["off_policy"], seeds=[0])
    assert (runs[0].config.sampling.k, runs[0].config.sampling.temperature) == (3, 0.5)


def test_who_shares_traces() -> None:
    by_recipe = {run.recipe: run.config for run in planned(tasks={}, seeds=[0])}
    assert len({traces_key(config) for config in by_recipe.values()}) == 1
    keys = {recipe: student_key(config) for recipe, config in by_recipe.items()}
    assert keys["off_policy"] == keys["on_policy"] == keys["mixed_policy"] is not None
    assert keys["single_cot"] is keys["diverse_cot"] is keys["zero_shot_cot"] is None
    thinner = by_recipe["off_policy"].positives.model_copy(update={"per_prompt": 2})
    assert student_key(by_recipe["off_policy"].model_copy(update={"positives": thinner})) == keys["off_policy"]
    other = planned(tasks={}, seeds=[1])[0].config
    assert traces_key(other) != traces_key(by_recipe["zero_shot_cot"])
