"""What `show` says of a run: from its files alone."""

import json
from pathlib import Path

import pytest

from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import InputError
from orpo_ray.report.show import committed_ledger, find_run, run_report
from tests.unit.report.finished import EVALUATIONS, QUESTION, RESULTS, write_finished_run, write_state


def test_a_finished_run_as_data(tmp_path: Path) -> None:
    layout = write_finished_run(tmp_path)
    report = run_report(layout, alive=False)
    assert json.loads(json.dumps(report)) == report
    assert (report["name"], report["state"], report["seconds"]) == ("toy", "done", 274.0)
    assert [phase["name"] for phase in report["phases"]] == list(RESULTS)
    assert [(e["epoch"], e["correct"]) for e in report["evaluations"]] == [(0, 142), (1, 190), (2, 237)]
    assert "samples" not in report["evaluations"][0]
    assert (report["evaluations"][2]["low"], report["evaluations"][2]["high"]) == (0.430598, 0.517798)
    assert report["teacher"]["rate"] == 0.926
    assert report["teacher"]["measured"] == "greedy, test"
    assert report["training"]["staleness"] == {"0": 450, "1": 150}
    assert report["student"]["path"] == "runs/toy/export"
    assert QUESTION in report["student"]["try"]
    assert report["files"] == {"evaluations and samples": str(layout.evaluations)}


def test_a_recorded_teacher_has_the_accuracy_of_its_traces(tmp_path: Path) -> None:
    layout = write_finished_run(tmp_path)
    phases = json.loads(layout.state.read_text())["phases"]
    phases["TEACH"]["result"]["test"] = None
    write_state(layout, phases=phases)
    teacher = run_report(layout, alive=False)["teacher"]
    assert (teacher["correct"], teacher["total"], teacher["measured"]) == (4320, 4800, "sampled, train")


def test_a_run_that_works_and_one_that_was_killed(tmp_path: Path) -> None:
    layout = write_finished_run(tmp_path)
    phases = json.loads(layout.state.read_text())["phases"]
    phases["DISTILL"] |= {"state": "running", "result": {}, "seconds": 10.0}
    write_state(layout, state="running", phases=phases)
    lines = [
        {"step": step, "epoch": 1, "attempt": 1, "version": 0, "loss": 2.0 / step, "pairs_per_s": 40.0, "pairs": 128.0,
         "by_policy": {"live": 16, "initial": 15, "none": 1}, "staleness": {"0": 16}}
        for step in (1, 2)
    ]  # fmt: skip
    layout.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "epo')
    working = run_report(layout, alive=True)
    assert working["state"] == "running"
    assert [phase["state"] for phase in working["phases"]] == ["done", "done", "done", "running", "waiting", "waiting"]
    assert working["phases"][3]["seconds"] > 10.0
    assert working["training"] == {
        "step": 2, "epoch": 1, "attempt": 1, "version": 0, "loss": 1.0, "pairs_per_s": 40.0, "pairs": 256,
        "by_policy": {"live": 32, "initial": 30, "none": 2}, "staleness": {"0": 32},
    }  # fmt: skip
    killed = run_report(layout, alive=False)
    assert (killed["state"], killed["phases"][3]["state"], killed["phases"][3]["seconds"]) == ("killed", "killed", 10.0)


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path, "toy")
    layout.run.mkdir()
    write_state(layout)
    report = run_report(layout, alive=True)
    assert {phase["state"] for phase in report["phases"]} == {"waiting"}
    assert (report["teacher"], report["training"], report["student"], report["evaluations"]) == (None, None, None, [])


def test_a_run_is_found_by_name_and_by_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = write_finished_run(tmp_path / "runs")
    assert find_run("toy", tmp_path / "runs") == layout
    assert find_run(str(layout.run), tmp_path / "elsewhere") == layout
    monkeypatch.chdir(layout.run)
    assert find_run(".", Path("runs")) == layout


def test_a_run_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run of this name in .* \(there are none\)"):
        find_run("toy", tmp_path)
    for name in ("b", "a"):
        write_finished_run(tmp_path, name)
    with pytest.raises(InputError, match=r"toy: .*\(runs there are a, b\)"):
        find_run("toy", tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    layout = write_finished_run(tmp_path)
    (layout.evaluations / "epoch-001-test.json").write_text("{")
    with pytest.raises(InputError, match=r"epoch-001-test\.json: cannot be read"):
        run_report(layout, alive=False)


def test_the_ledger_holds_each_row_of_the_committed_lineage_once(tmp_path: Path) -> None:
    """Attempt 1 trained steps 1 to 5 and died; attempt 2 began after the checkpoint of step 3 and was cut short."""

    def write(attempt: int, rank: int, steps: range, cut: str = "") -> None:
        lines = [{"attempt": attempt, "step": step, "rank": rank, "row": 2 * (step - 1) + rank} for step in steps]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"attempt-{attempt:03d}-rank-{rank}.jsonl").write_text(text + cut)

    for rank in (0, 1):
        write(1, rank, range(1, 6))
    write(2, 0, range(4, 8), cut='{"attempt": 2, "st')
    write(2, 1, range(4, 7))
    write(3, 0, range(0))  # an attempt that trained nothing voids nothing
    lines = list(committed_ledger(tmp_path))
    assert sorted((line["row"], line["attempt"]) for line in lines) == [
        *((row, 1) for row in range(6)),
        *((row, 2) for row in range(6, 13)),
    ]
    assert list(committed_ledger(tmp_path / "nowhere")) == []


def test_the_evaluations_are_those_that_the_run_reports() -> None:
    """The fixture is what the rest of this file rests on."""
    assert RESULTS["EVALUATE"]["evaluations"] == EVALUATIONS
