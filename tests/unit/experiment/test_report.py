"""From finished runs to the table, the tests and the page."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config.experiment import ExperimentConfig
from orpo_ray.experiment import paper
from orpo_ray.experiment.charts import Line, line_chart, ticks
from orpo_ray.experiment.measures import overlap
from orpo_ray.experiment.report_files import write_report
from orpo_ray.experiment.results import read_result
from orpo_ray.experiment.runs import PlannedRun, planned_runs
from orpo_ray.experiment.text import interval
from tests.unit.experiment import made_up
from tests.unit.experiment.conftest import experiment_in

FAILED = "exp.on_policy.sums.student.s1"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture(scope="module")
def storage(directory: Path) -> Path:
    return directory / "runs"


@pytest.fixture(scope="module")
def swept(directory: Path) -> ExperimentConfig:
    sweep = {"option": "policy.phi", "values": [0.2, 0.4, 0.8], "recipe": "mixed_policy"}
    return ExperimentConfig.model_validate(experiment_in(directory).model_dump() | {"sweeps": [sweep]})


@pytest.fixture(scope="module")
def runs(swept: ExperimentConfig) -> list[PlannedRun]:
    return planned_runs(swept)


@pytest.fixture(scope="module")
def report(swept: ExperimentConfig, runs: list[PlannedRun], storage: Path) -> dict[str, Any]:
    """All runs done but one of the on-policy ones, which failed."""
    made = set()
    for run in runs:
        if run.name not in made and run.name != FAILED:
            made.add(run.name)
            made_up.finish(run.config)
    return write_report(swept, runs, storage, {FAILED: "out of memory"})


def expected(run: PlannedRun) -> float:
    return len(made_up.right_answers(run.config, run.config.train.epochs if run.config.trains else 0)) / 200


def test_a_result_is_what_the_files_say(runs: list[PlannedRun], report: dict[str, Any], storage: Path) -> None:
    run = next(run for run in runs if run.recipe == "mixed_policy")
    result = read_result(run, storage)
    assert result.accuracy == expected(run)
    assert sorted(result.curve) == [0, 1, 2]
    assert result.epoch == 2
    assert result.right == frozenset(made_up.right_answers(run.config, 2))
    assert result.epochs[1]["margin"] == pytest.approx(0.25)
    assert result.epochs[2]["live_novelty"] == pytest.approx(0.7)
    assert result.tokens == {"trained": 800, "computed": 1200, "sampled": 320}
    assert result.teacher == (180, 200)
    # [5,6,7,8] and [5,6,9,9]: 2 of 4 in common; to [5,6,7,7] 3 and 2 of 4.
    assert result.negatives[1].diversity == pytest.approx(0.5)
    assert result.negatives[1].nearness == pytest.approx((0.75 + 0.5) / 2)
    # 36 s of 5 CPUs asked on 2 cores, and of 1 GPU.
    assert result.costs["DISTILL"].core_hours == pytest.approx(0.02)
    assert result.costs["DISTILL"].gpu_hours == pytest.approx(0.01)


def test_overlap_is_rouge_l_on_tokens() -> None:
    assert overlap([1, 2, 3], [1, 3]) == pytest.approx(2 * 2 / 5)
    assert overlap([], [1]) == 0.0


def test_the_table_has_means_over_seeds(report: dict[str, Any], runs: list[PlannedRun]) -> None:
    rows = {row["recipe"]: row for row in report["table"]}
    assert list(rows) == [
        "zero_shot_cot", "single_cot", "diverse_cot", "off_policy", "on_policy", "mixed_policy",
    ]  # fmt: skip
    cell = rows["off_policy"]["cells"][1]
    assert (cell["task"], cell["seeds"], cell["interval"]) == ("more", [0, 1], "t")
    values = [expected(run) for run in runs if run.recipe == "off_policy" and run.task == "more"]
    assert cell["values"] == values
    assert cell["mean"] == pytest.approx(sum(values) / 2)
    half = 12.7062 * abs(values[0] - values[1]) / 2  # s/√2 = |a - b| / 2
    assert cell["high"] - cell["mean"] == pytest.approx(half, abs=1e-4)


def test_a_missing_seed_is_not_averaged_over(report: dict[str, Any]) -> None:
    row = next(row for row in report["table"] if row["recipe"] == "on_policy")
    assert row["cells"][0]["seeds"] == [0]
    assert row["cells"][0]["interval"] == "wilson"
    assert len(row["averages"][0]["values"]) == 1, "seed 1 lacks a task"
    assert report["runs"] == {"planned": 24 + 8, "done": 31, "failed": {FAILED: "out of memory"}, "missing": []}


def test_paired_tests_use_the_same_questions(report: dict[str, Any], runs: list[PlannedRun]) -> None:
    test = next(
        item for item in report["comparisons"] if (item["first"], item["second"]) == ("off_policy", "mixed_policy")
    )
    assert (test["runs"], test["questions"]) == (4, 800)
    by_key = {
        (run.recipe, run.task, run.seed): set(made_up.right_answers(run.config, 2)) for run in runs if not run.swept
    }
    gained = sum(
        len(by_key["mixed_policy", task, seed] - by_key["off_policy", task, seed])
        for task in ("sums", "more") for seed in (0, 1)
    )  # fmt: skip
    assert test["gained"] == gained > 0
    assert test["mcnemar_p"] < 1e-6
    assert test["mcnemar_p"] <= test["mcnemar_p_holm"]
    assert test["bootstrap"]["low"] > 0
    on = next(item for item in report["comparisons"] if item["second"] == "on_policy")
    assert on["runs"] == 3, "only where both are there"


def test_gains_stand_beside_the_papers(report: dict[str, Any]) -> None:
    gain = next(item for item in report["gains"] if (item["first"], item["second"]) == ("off_policy", "mixed_policy"))
    assert gain["paper_points"] == {"TinyLlama-1.1B": 1.81, "InternLM2.5-1.8B": 1.91}
    assert gain["measured"]["student"]["mean"] > 0


def test_what_is_shared_is_counted_apart(report: dict[str, Any]) -> None:
    costs = report["costs"]
    assert costs["recipes"]["off_policy"]["seconds"] == 4 * 4 * 36
    assert costs["shared"]["seconds"] == 27 * 2 * 36, "TEACH and SEED of the 27 runs that train"
    assert costs["total"]["seconds"] == 27 * 6 * 36 + 4 * 2 * 36


def test_a_sweep_takes_the_tables_run_for_its_value(report: dict[str, Any]) -> None:
    sweep = next(sweep for sweep in report["sweeps"] if sweep["task"] == "sums")
    assert (sweep["option"], sweep["recipe"]) == ("policy.phi", "mixed_policy")
    assert [(point["value"], len(point["values"])) for point in sweep["points"]] == [(0.2, 2), (0.4, 2), (0.8, 2)]


def test_the_files(report: dict[str, Any], storage: Path) -> None:
    directory = storage / "experiments" / "exp"
    text = (directory / "report.md").read_text()
    assert "31 of 32 runs are done; seeds 0, 1." in text
    assert f"- {FAILED} failed: out of memory" in text
    assert "| mixed-policy ORPO | " in text
    assert "| mixed-policy ORPO | 50.43 | 59.32 | 61.75 | 55.22 | 52.47 | 55.84 |" in text, "the paper's own"
    assert json.loads((directory / "report.json").read_text())["runs"]["done"] == 31
    rows = list(csv.DictReader(io.StringIO((directory / "runs.csv").read_text())))
    assert len(rows) == 24 - 1 + 12
    assert {row["total"] for row in rows} == {"200"}
    lines = list(csv.DictReader(io.StringIO((directory / "epochs.csv").read_text())))
    assert {line["measure"] for line in lines} >= {
        "test accuracy",
        "margin",
        "diversity",
        "nearness",
        "phi",
        "live_novelty",
    }
    page = (directory / "index.html").read_text()
    for link in ("http://", "https://", "src=", "<link", "<script"):
        assert link not in page.replace("http://www.w3.org/2000/svg", ""), "the page needs nothing else"
    svgs = sorted((directory / "charts").glob("*.svg"))
    assert {"accuracy-sums-student.svg", "margin-sums-student.svg", "sweep-policy-phi.svg"} <= {
        svg.name for svg in svgs
    }
    for svg in svgs:
        ElementTree.parse(svg)
    assert page.count("<svg") == len(svgs)


def test_nothing_done_yet_is_a_report_too(experiment: ExperimentConfig, tmp_path: Path) -> None:
    report = write_report(experiment, planned_runs(experiment), tmp_path, {})
    assert report["runs"]["done"] == 0
    assert "| single-CoT fine-tuning | – | – | – |" in (tmp_path / "experiments/exp/report.md").read_text()


def test_the_papers_averages_are_those_of_its_columns() -> None:
    for model, rows in paper.ACCURACY.items():
        for recipe, values in rows.items():
            assert sum(values) / 5 == pytest.approx(paper.AVERAGE[model][recipe], abs=0.0051)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ({"mean": None, "low": None, "high": None}, "–"),
        ({"mean": 0.5, "low": None, "high": None}, "50.0"),
        ({"mean": 0.5, "low": 0.45, "high": 0.55}, "50.0 ± 5.0"),
        ({"mean": 0.95, "low": 0.9, "high": 0.97}, "95.0 (90.0 to 97.0)"),
    ],
)
def test_a_cell(cell: dict[str, Any], text: str) -> None:
    assert interval(cell) == text


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0, 5, True, [0, 1, 2, 3, 4, 5]),
        (0, 1, True, [0, 1]),
        (28.4, 57, False, [20, 30, 40, 50, 60]),
        (0.02, 0.11, False, [0.02, 0.04, 0.06, 0.08, 0.1, 0.12]),
    ],
)
def test_ticks_are_round(low: float, high: float, whole: bool, expected: list[float]) -> None:
    assert ticks(low, high, whole=whole) == expected


def test_ticks_of_one_value_enclose_it() -> None:
    found = ticks(3.0, 3.0)
    assert found[0] < 3 < found[-1]


def test_a_chart_draws_each_point_inside_its_frame() -> None:
    svg = line_chart("t <&>", "x", "y", [Line("a", "#000000", [(0, 1, 0.5, 1.5), (2, 3, None, None)])])
    root = ElementTree.fromstring(svg)
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2
    assert float(circles[0].get("cy") or 0) > float(circles[1].get("cy") or 0), "more is higher"
    assert all(0 < float(circle.get("cx") or 0) < 640 for circle in circles)
