"""The report that ends a run, as a person reads it."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from orpo_ray.report.show import run_report
from orpo_ray.report.table import print_report
from orpo_ray.report.wording import duration, parameters, phase_sentence
from tests.unit.report.finished import RESULTS, write_finished_run, write_state


def printed(report: dict[str, object], width: int = 140, *, files: bool = False) -> str:
    stream = io.StringIO()
    print_report(Console(file=stream, width=width), report, files=files)
    return stream.getvalue()


def rows(text: str) -> list[str]:
    """Lines with their columns set apart by one blank."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_finished_run(tmp_path: Path) -> None:
    lines = rows(printed(run_report(write_finished_run(tmp_path), alive=False)))
    for line in (
        "toy: done, 4 min 34 s of work",
        "TEACH done 1 min 10 s 4,800 traces of 600 prompts, 90.0 % right, 2,013 kept",
        "before 142/500 28.4 % (24.6–32.5) 98.0 % 41",
        "after epoch 2 237/500 47.4 % (43.1–51.8) 98.0 % 41",
        "teacher (greedy, test) 463/500 92.6 % (90.0–94.6)",
        "change +19.0 points, the intervals are apart",
        "pairs 4,700 trained in 38 steps; prompts by their negatives: 600 live, 590 initial, 4 none (SFT)",
        "0 ██████████████████████ 450 (75.0 %)",
        "1 ████████ 150 (25.0 %)",
        "student runs/toy/export",
    ):
        assert line in lines


def test_what_happened_is_told_in_order(tmp_path: Path) -> None:
    layout = write_finished_run(tmp_path)
    sizes = {"all_workers": 2, "all_samplers": 3}
    events: list[dict[str, object]] = [
        {"kind": "distill.progress", "step": 1},
        {"kind": "fault", "error": "Traceback …"},
        {"kind": "note", "text": "the worker group failed (a node died); attempt 2 starts from the last checkpoint"},
        {"kind": "distill.places", "attempt": 2, "workers": 1, "samplers": 2, **sizes},
        {"kind": "distill.left", "attempt": 2, "why": "there is a place for more workers or samplers"},
        {"kind": "distill.places", "attempt": 3, "workers": 2, "samplers": 3, **sizes},
    ]
    layout.events.write_text(
        "".join(json.dumps({"time": f"2026-01-02T03:04:0{at}.000Z", **event}) + "\n" for at, event in enumerate(events))
    )
    told = [line for line in printed(run_report(layout, alive=False)).splitlines() if line.startswith("2026")]
    assert told == [
        "2026-01-02T03:04:02  the worker group failed (a node died); attempt 2 starts from the last checkpoint",
        "2026-01-02T03:04:03  attempt 2 has 1 of 2 train workers and 2 of 3 samplers: fewer workers and samplers, until "
        "there is a place for more",
        "2026-01-02T03:04:04  attempt 2 ended at a checkpoint: there is a place for more workers or samplers",
        "2026-01-02T03:04:05  attempt 3 has 2 of 2 train workers and 3 of 3 samplers again",
    ]


def test_the_line_to_try_it_is_one_line_however_narrow_the_terminal(tmp_path: Path) -> None:
    text = printed(run_report(write_finished_run(tmp_path), alive=False), width=60)
    tried = [line for line in text.splitlines() if line.startswith("try it")]
    assert len(tried) == 1
    assert tried[0].endswith('[0]["generated_text"])\'')


def test_intervals_that_overlap_are_said_to(tmp_path: Path) -> None:
    report = run_report(write_finished_run(tmp_path), alive=False)
    report["evaluations"] = report["evaluations"][:2]
    report["evaluations"][1] |= {"correct": 150}
    assert "change   +1.6 points, the intervals overlap" in printed(report)


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    layout = write_finished_run(tmp_path)
    phases = json.loads(layout.state.read_text())["phases"]
    phases["EXPORT"]["state"] = "interrupted"
    write_state(layout, state="interrupted", phases=phases)
    assert "go on with  orpo-ray run toy.yaml" in printed(run_report(layout, alive=False))


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    layout = write_finished_run(tmp_path)
    phases = json.loads(layout.state.read_text())["phases"]
    phases["DISTILL"] |= {"state": "failed", "error": "limits.gate_s: [a sampler] waited", "result": {}}
    write_state(layout, state="failed", error="limits.gate_s: [a sampler] waited", phases=phases)
    text = printed(run_report(layout, alive=False))
    assert text.count("limits.gate_s: [a sampler] waited") == 2


def test_files_on_demand(tmp_path: Path) -> None:
    layout = write_finished_run(tmp_path)
    assert str(layout.evaluations) not in printed(run_report(layout, alive=False), width=400)
    assert str(layout.evaluations) in printed(run_report(layout, alive=False), width=400, files=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(512, "512"), (363_000, "363 k"), (134_515_008, "134.5 M"), (1_100_048_384, "1.1 B")]
)
def test_sizes(count: int, text: str) -> None:
    assert parameters(count) == text


@pytest.mark.parametrize("phase", list(RESULTS))
def test_a_result_that_lacks_something_is_no_reason_to_fail(phase: str) -> None:
    assert phase_sentence(phase, RESULTS[phase])
    assert phase_sentence(phase, {}) == ""
