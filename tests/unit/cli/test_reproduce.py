"""`orpo-ray reproduce`: what it prints, and with which code it ends. The runs themselves are made up."""

import sys
from pathlib import Path

import pytest
import yaml

from orpo_ray.cli.reproduce import FailedRunsError, reproduce
from orpo_ray.controller.lock import RunLock
from orpo_ray.errors import InputError
from orpo_ray.experiment import execution
from tests.unit.config.data import MINIMAL
from tests.unit.experiment import made_up

ROOT = Path(__file__).parents[3]
EXPERIMENT = {
    "name": "exp",
    "run": MINIMAL | {"train": {"epochs": 1, "global_batch": 4, "micro_batch": 2}},
    "recipes": ["off_policy", "mixed_policy"],
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file = tmp_path / "experiment.yaml"
    file.write_text(
        yaml.safe_dump(EXPERIMENT | {"run": EXPERIMENT["run"] | {"storage": {"path": str(tmp_path / "runs")}}})
    )
    return file


@pytest.fixture(autouse=True)
def made_up_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's command line starts a stand-in."""
    defaults = execution.Execution.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "command", lambda file: [sys.executable, made_up.__file__, str(file)])


def test_a_dry_run_lists_and_starts_nothing(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(file, (), dry_run=True, report_only=False)
    assert "exp.mixed_policy.arithmetic.student.s0" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_all_of_it(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(file, (), dry_run=False, report_only=False)
    printed = capsys.readouterr().out
    assert "2 runs, 0 of them finished already" in printed
    assert "mixed-policy ORPO" in printed
    assert "Paired tests between recipes" in printed
    assert "experiments/exp/index.html" in printed
    assert (tmp_path / "runs/experiments/exp/report.md").is_file()
    reproduce(file, (), dry_run=False, report_only=False)
    assert "2 runs, 2 of them finished already" in capsys.readouterr().out


def test_a_failed_run_is_named_at_the_end(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MADE_UP", "fail:off_policy")
    with pytest.raises(FailedRunsError) as failed:
        reproduce(file, ("run.sampling.k=4",), dry_run=False, report_only=False)
    assert str(failed.value) == (
        "1 of 2 runs failed\n  - exp.off_policy.arithmetic.student.s0: exit code 2: orpo-ray: the teacher never answers right"
    )
    assert failed.value.__notes__ == [
        f"The others are done. Try the failed ones again with\n  orpo-ray reproduce {file} --set run.sampling.k=4"
    ]
    assert failed.value.exit_code == 1
    assert "off_policy.arithmetic.student.s0 failed" in (tmp_path / "runs/experiments/exp/report.md").read_text()


def test_two_at_the_same_experiment_are_refused(file: Path, tmp_path: Path) -> None:
    with RunLock(tmp_path / "runs/experiments/exp/lock"), pytest.raises(InputError, match="another process works on"):
        reproduce(file, (), dry_run=False, report_only=False)


def test_a_report_alone_starts_nothing(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(file, (), dry_run=False, report_only=True)
    assert "0 of 2 runs are done" in (tmp_path / "runs/experiments/exp/report.md").read_text()
