"""Runs as child processes: skipped, failed, stopped, and never two at the same traces. `orpo-ray run` is made up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_ray.config.experiment import ExperimentConfig
from orpo_ray.errors import InputError
from orpo_ray.experiment import execution
from orpo_ray.experiment.execution import Execution, check_parallel, run_command, visible_gpus
from orpo_ray.experiment.results import is_finished
from orpo_ray.experiment.runs import PlannedRun, planned_runs
from tests.unit.experiment import made_up

MADE_UP = Path(made_up.__file__)
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def runs(experiment: ExperimentConfig) -> list[PlannedRun]:
    wanted = ("single_cot", "off_policy", "mixed_policy")
    return [run for run in planned_runs(experiment) if run.seed == 0 and run.task == "sums" and run.recipe in wanted]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    file = tmp_path / "log"
    monkeypatch.setenv("MADE_UP", f"log:{file}")
    return lambda: file.read_text().splitlines() if file.exists() else []


def start(runs: list[PlannedRun], storage: Path, **options: object) -> Execution:
    said: list[str] = []
    made = Execution(
        "exp", runs, storage, say=said.append, poll_s=0.02,
        command=lambda file: [sys.executable, str(MADE_UP), str(file)], **options,  # type: ignore[arg-type]
    )  # fmt: skip
    made.said = said  # type: ignore[attr-defined]
    return made


def order(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE_UP", f"{os.environ['MADE_UP']};{what}")


def test_one_after_the_other_and_nothing_twice(
    runs: list[PlannedRun], storage: Path, log: Callable[[], list[str]]
) -> None:
    reports: list[int] = []
    outcome = start(runs, storage, after=lambda failed: reports.append(len(failed))).run()
    names = [run.name for run in runs]
    assert outcome.done == names
    assert log() == [f"{what} {name}" for name in names for what in ("start", "end")]
    assert reports == [0, 0, 0]
    assert all(is_finished(run, storage) for run in runs)
    again = start(runs, storage)
    assert again.run().skipped == names
    assert len(log()) == 6, "no process was started"


def test_a_changed_option_is_another_run(runs: list[PlannedRun], storage: Path) -> None:
    made_up.finish(runs[0].config)
    assert is_finished(runs[0], storage)
    other = runs[0].config.model_copy(update={"seed": 5})
    assert not is_finished(PlannedRun(runs[0].name, None, "", "", 5, other), storage)


def test_a_failed_run_is_named_and_the_others_go_on(
    runs: list[PlannedRun], storage: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    order("fail:off_policy", monkeypatch)
    outcome = start(runs, storage).run()
    assert outcome.done == [runs[0].name, runs[2].name]
    assert outcome.failed == {runs[1].name: "exit code 2: orpo-ray: the teacher never answers right"}
    assert (storage / "experiments/exp/logs" / f"{runs[1].name}.log").read_text().startswith("orpo-ray: the teacher")


def test_runs_that_share_traces_wait_for_the_one_that_makes_them(
    runs: list[PlannedRun], storage: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The made-up run writes its record at its end, so that nothing is shared before."""
    start(runs, storage, parallel=3).run()
    assert [line.split()[0] for line in log()] == ["start", "end"] * 3


def test_several_at_a_time_where_nothing_is_shared(
    experiment: ExperimentConfig, storage: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run for run in planned_runs(experiment) if run.recipe == "single_cot"]
    assert len(runs) == 4
    order("wait", monkeypatch)
    made = start(runs, storage, parallel=3)
    interrupt_when(lambda: len(log()) == 3)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    started = {line.split()[1] for line in log() if line.startswith("start")}
    stopped = {line.split()[1] for line in log() if line.startswith("stopped")}
    assert started == stopped == {run.name for run in runs[:3]}, "each is stopped by one SIGINT, the fourth never began"
    files = (storage / "experiments/exp/runs").glob("*.yaml")
    assert all("port: 0" in file.read_text() for file in files), "teachers side by side take free ports"


def interrupt_when(condition: Callable[[], bool]) -> None:
    """Ctrl-C for the main thread once `condition` holds."""

    def watch() -> None:
        end = time.monotonic() + 30
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def test_a_stopped_experiment_goes_on(
    runs: list[PlannedRun], storage: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up.finish(runs[0].config)
    before = os.environ["MADE_UP"]
    order("wait", monkeypatch)
    interrupt_when(lambda: len(log()) == 1)
    with pytest.raises(KeyboardInterrupt):
        start(runs, storage).run()
    monkeypatch.setenv("MADE_UP", before)
    outcome = start(runs, storage).run()
    assert (outcome.skipped, outcome.done) == ([runs[0].name], [runs[1].name, runs[2].name])


def test_a_run_that_takes_long_is_heard_of(
    runs: list[PlannedRun], storage: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT_S", 0.05)
    order("wait", monkeypatch)
    made = start(runs[:1], storage)
    interrupt_when(lambda: any(": nothing printed" in line for line in made.said))  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        made.run()


def test_more_than_the_machine_holds_is_refused(runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "machine_memory", lambda: 20 << 30)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_parallel(runs, 1)
    with pytest.raises(InputError, match=r"parallel: 9 runs at a time need \d+\.\d GiB of memory, there is 20\.0 GiB"):
        check_parallel(runs, 9)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_parallel(runs, 9)


def test_gpus_are_shared_out(
    experiment: ExperimentConfig, storage: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert visible_gpus() == ("3", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    on_gpu = experiment.run | {"resources": {"evaluator_gpus": 1}}
    changed = experiment.model_copy(update={"run": on_gpu, "recipes": ["single_cot"]})
    runs = planned_runs(changed)[:2]
    seen = tmp_path / "seen"
    tell = f"import os; open({str(seen)!r}, 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + ' ')"
    made = start(runs, storage, parallel=2)
    made._command = lambda file: [sys.executable, "-c", tell]
    made.run()
    assert sorted(seen.read_text().split()) == ["3", "5"]
    with pytest.raises(InputError, match="3 runs of 1 GPUs at a time need 3, there are 2; take 2"):
        check_parallel(runs, 3)


def test_the_real_command_is_the_command_line() -> None:
    help_text = subprocess.run(
        [*run_command(Path("x"))[:3], "run", "--help"], capture_output=True, text=True, check=True
    )
    assert "Run a distillation, or go on with it." in help_text.stdout
