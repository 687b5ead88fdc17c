"""`run` with dummy phases: what a person reads, and with what code it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import orpo_ray.phases
from orpo_ray.errors import DataError, VerifierError
from orpo_ray.phases.context import RunContext
from tests.unit.cli.conftest import CONFIG, Call
from tests.unit.controller.dummies import Toy
from tests.unit.report.finished import RESULTS, write_evaluations

PHASES = ["PREPARE", "TEACH", "SEED", "DISTILL", "EVALUATE", "EXPORT"]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    toy = Toy(tmp_path / "runs", returns=RESULTS)
    toy.phases["EVALUATE"].does = lambda context: write_evaluations(context.layout.evaluations)
    monkeypatch.setattr(orpo_ray.phases, "all_phases", lambda: list(toy.phases.values()), raising=False)
    return toy


def test_a_run_says_what_it_does_and_ends_with_its_report(call: Call, toy: Toy) -> None:
    ended = call("run", "toy.yaml")
    assert (ended.code, ended.err) == (0, "")
    for phase in PHASES:
        assert f"{phase:<8} …" in ended.out
        assert f"{phase:<8} done in " in ended.out
    assert "toy: done, " in ended.out
    for part in ("before", "after epoch 2", "47.4 % (43.1–51.8)", "teacher (greedy, test)", "try it"):
        assert part in ended.out


def test_a_second_run_finds_everything(call: Call, toy: Toy) -> None:
    call("run", "toy.yaml")
    ended = call("run", "toy.yaml")
    assert [phase for phase in PHASES if f"{phase:<8} found" in ended.out] == PHASES
    assert [phase.runs for phase in toy.phases.values()] == [1] * 6


def test_a_changed_field_is_refused_by_name(call: Call, toy: Toy) -> None:
    call("run", "toy.yaml")
    ended = call("run", "toy.yaml", "--set", "policy.phi=0.7")
    assert ended.code == 2
    assert "policy.phi: was 0.5, is 0.7" in ended.err
    assert "--fresh" in ended.err
    assert call("run", "toy.yaml", "--set", "policy.phi=0.7", "--fresh").code == 0


def test_a_change_that_does_not_matter_is_welcome(call: Call, toy: Toy) -> None:
    call("run", "toy.yaml")
    assert call("run", "toy.yaml", "--set", "limits.gate_s=9999").code == 0


def test_the_same_run_twice_at_a_time_is_refused(call: Call, toy: Toy) -> None:
    from orpo_ray.controller.lock import RunLock

    with RunLock(Path("runs/toy/lock")):
        ended = call("run", "toy.yaml")
    assert ended.code == 2
    assert f"another process works on this run (pid {os.getpid()} on " in ended.err


def test_a_storage_that_cannot_be_written(call: Call, toy: Toy) -> None:
    Path("runs").write_text("a file")
    ended = call("run", "toy.yaml")
    assert ended.code == 2
    assert "storage.path" in ended.err
    assert toy.phases["PREPARE"].runs == 0


def test_a_mirror_that_cannot_be_used_is_one_message_and_nothing_is_made(call: Call, toy: Toy) -> None:
    Path("file").write_text("")
    ended = call("run", "toy.yaml", "--set", f"storage.mirror={(Path.cwd() / 'file' / 'x').as_uri()}")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("orpo-ray: storage.mirror: file:")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("rows.jsonl, line 3: no field `question`"), 2), (VerifierError("row 17: no gold answer"), 2)],
)
def test_an_error_of_a_phase_is_one_message(call: Call, toy: Toy, error: Exception, code: int) -> None:
    def fails(context: RunContext) -> None:
        raise RuntimeError("ray::map() failed\n  Traceback") from error

    toy.phases["TEACH"].does = fails
    ended = call("run", "toy.yaml")
    assert (ended.code, ended.err) == (code, f"orpo-ray: {error}\n")


def test_an_error_of_nobody_names_phase_and_cause(call: Call, toy: Toy) -> None:
    def fails(context: RunContext) -> None:
        raise RuntimeError("the actor died")

    toy.phases["DISTILL"].does = fails
    ended = call("run", "toy.yaml")
    assert ended.code == 1
    assert ended.err == (
        "orpo-ray: DISTILL failed: RuntimeError: the actor died\n"
        f"The traceback is in {Path.cwd()}/runs/toy/events.jsonl\n"
        "What is finished is kept. Go on with\n  orpo-ray run toy.yaml\n"
    )


def test_the_message_of_an_interrupted_run_is_the_command_that_goes_on(call: Call, toy: Toy) -> None:
    def stopped(context: RunContext) -> None:
        raise KeyboardInterrupt

    toy.phases["SEED"].does = stopped
    ended = call("run", "toy.yaml", "--set", "sampling.k=4", "--fresh")
    assert ended.code == 130
    assert ended.err == (
        "orpo-ray: stopped in SEED; what is finished is kept. Go on with\n  orpo-ray run toy.yaml --set sampling.k=4\n"
    )


SLOW = """
import sys, time
from pathlib import Path
sys.argv[0] = "orpo-ray"
import orpo_ray.phases
from orpo_ray.cli import main
from tests.unit.controller.dummies import Toy

def sleep(context):
    try:
        print("working", file=sys.__stdout__, flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", file=sys.__stdout__, flush=True)

toy = Toy(Path("runs"))
toy.phases["DISTILL"].does = sleep
orpo_ray.phases.all_phases = lambda: list(toy.phases.values())
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_real_process_cleanly(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", SLOW, "run", "toy.yaml"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "working\n":
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "cleaned up" in out
    assert "stopped in DISTILL; what is finished is kept. Go on with\n  orpo-ray run toy.yaml" in err
    assert json.loads((tmp_path / "runs/toy/run.json").read_text())["state"] == "interrupted"
