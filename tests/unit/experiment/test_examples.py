"""The experiments in examples/: what each of their runs is."""

from pathlib import Path

import pytest

from orpo_ray.config import load_config
from orpo_ray.config.experiment import load_experiment
from orpo_ray.config.fingerprint import what_matters
from orpo_ray.experiment.runs import PlannedRun, planned_runs, student_key, traces_key

ROOT = Path(__file__).parents[3]
FILES = [
    "reproduce-demo.yaml",
    "reproduce-lambda.yaml",
    "paper/table.yaml",
    "paper/negatives.yaml",
    "paper/sweeps.yaml",
]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in examples are relative to the working directory."""
    monkeypatch.chdir(ROOT)


def runs_of(file: str) -> list[PlannedRun]:
    return planned_runs(load_experiment(Path("examples") / file), file)


@pytest.mark.parametrize("file", FILES)
def test_an_experiment_is_valid_and_listed(file: str) -> None:
    assert runs_of(file)
    assert f"({file})" in (ROOT / "examples/README.md").read_text(encoding="utf-8")


def test_the_papers_table_is_60_runs_under_the_papers_settings() -> None:
    """PAPER.md, 'Settings'."""
    runs = runs_of("paper/table.yaml")
    assert len(runs) == len({run.name for run in runs}) == 6 * 5 * 2
    assert {run.config.task.name for run in runs} == {"medqa", "arc_challenge", "strategyqa", "openbookqa", "gsm8k"}
    for run in runs:
        config = run.config
        assert (config.sampling.k, config.sampling.temperature, config.sampling.rouge_l_max) == (8, 0.8, 0.8)
        assert (config.train.epochs, config.train.lam) == (5, 1.0)
        assert (config.policy.refresh, config.policy.max_staleness) == ("epoch", 0)
        assert config.teacher.model == "internlm/internlm2_5-7b-chat"
        if run.recipe == "mixed_policy":
            assert config.policy.phi == 0.5
    assert len({traces_key(run.config) for run in runs}) == 5, "the teacher is asked once for each task"
    assert len({student_key(run.config) for run in runs} - {None}) == 10


def test_the_papers_ablation_differs_in_the_negatives_alone() -> None:
    teacher, student = (run.config for run in runs_of("paper/negatives.yaml") if run.task == "medqa")
    before, after = what_matters(teacher), what_matters(student)
    assert {key for key in before if before[key] != after[key]} == {"negatives.source"}


def test_sweeps_share_the_runs_of_the_table() -> None:
    runs = runs_of("paper/sweeps.yaml")
    names = {run.name for run in runs}
    # Of 3 + 5 + 2 + 3 + 2 + 5 points 8 are the settings of the table's three runs.
    assert len(runs) == 3 + 20
    assert len(names) == 3 + 20 - 8


def test_the_demos_experiment_is_30_runs_of_the_demo() -> None:
    runs = runs_of("reproduce-demo.yaml")
    assert len(runs) == 6 * 5
    demo = load_config(ROOT / "orpo_ray/demo/demo.yaml")
    assert {run.config.student.model for run in runs} == {demo.student.model}
    assert {run.config.train.lam for run in runs} == {0.1}
    steps = {run.config.geometry(600).steps for run in runs}
    assert len(steps) == 1, "the same budget of optimizer steps"


def test_the_study_of_lambda_changes_one_thing_at_a_time() -> None:
    runs = [run for run in runs_of("reproduce-lambda.yaml") if run.seed == 0]
    one = next(run.config for run in runs if run.recipe == "mixed_policy" and run.config.train.lam == 1)
    before = what_matters(one)
    changed = [{key for key in before if before[key] != what_matters(run.config)[key]} for run in runs]
    assert len(runs) == 1 + 1 + 3 + 4 + 2
    assert sorted(len(keys) for keys in changed[1:]) == [0] + [1] * 9
