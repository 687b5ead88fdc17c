"""The data card counts what is stored and trained on, against numbers found another way."""

import json
import statistics
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from orpo_ray.config.layout import RunLayout
from orpo_ray.report.browse import RunTraces
from orpo_ray.report.data_card import Lengths, data_card, mean_pairwise_overlap
from orpo_ray.report.data_card_text import data_card_markdown
from orpo_ray.tasks.provenance import PROVENANCE
from orpo_ray.tasks.registry import TASKS
from tests.unit.report.traced import answers, rows, tokens, write_traced_run


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return write_traced_run(tmp_path)


@pytest.fixture
def card(layout: RunLayout) -> dict[str, Any]:
    results = {name: phase["result"] for name, phase in json.loads(layout.state.read_text())["phases"].items()}
    return data_card(RunTraces.open(layout), results)


def test_stored_traces_are_counted_by_what_they_are(card: dict[str, Any]) -> None:
    teacher, initial = card["traces"]["teacher"], card["traces"]["initial"]
    assert (teacher["traces"], teacher["right"], teacher["wrong"], teacher["kept"]) == (8, 6, 2, 4)
    assert teacher["shares"]["right"] == 0.75
    assert (initial["traces"], initial["wrong"], initial["unparsed"], initial["kept"]) == (4, 2, 2, 2)


def test_lengths_are_those_of_the_student_s_tokens(card: dict[str, Any]) -> None:
    kept = [len(tokens(text)) for row in rows() for text in answers(row)[:2]]
    found = card["traces"]["teacher"]["kept_tokens"]
    assert found["mean"] == pytest.approx(statistics.mean(kept), abs=0.01)
    assert found["max"] == max(kept)


def test_overlap_of_kept_traces_is_rouge_score_s(card: dict[str, Any]) -> None:
    scorer = RougeScorer(["rougeL"])
    scores = [scorer.score(*answers(row)[:2])["rougeL"].fmeasure for row in rows()]
    assert card["traces"]["teacher"]["kept_overlap"] == pytest.approx(statistics.mean(scores), abs=1e-6)
    assert card["traces"]["initial"]["kept_overlap"] is None


def test_only_what_was_trained_is_counted_by_epoch(card: dict[str, Any]) -> None:
    (epoch,) = card["epochs"]  # the second epoch is sampled, and waits for its step
    assert (epoch["epoch"], epoch["prompts"], epoch["pairs"]) == (1, 2, 4)
    assert epoch["by_origin"] == {"live": 1, "initial": 1}
    assert epoch["by_version"] == {"0": 1}
    assert epoch["rejected_verdicts"] == {"wrong": 2}
    scorer = RougeScorer(["rougeL"])
    scores = [scorer.score(right, answers(row)[2])["rougeL"].fmeasure for row in rows() for right in answers(row)[:2]]
    assert epoch["pair_overlap"] == pytest.approx(statistics.mean(scores), abs=1e-6)


def test_it_is_json(card: dict[str, Any]) -> None:
    assert json.loads(json.dumps(card)) == card


def test_provenance_and_licences(card: dict[str, Any], layout: RunLayout, tmp_path: Path) -> None:
    assert card["task"]["licence"] == "Apache-2.0"
    assert card["models"]["student"] == {"name": "student", "licence": None}
    model = tmp_path / "model"
    model.mkdir()
    (model / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    record = json.loads(layout.state.read_text())
    record["config"]["teacher"]["model"] = str(model)
    layout.state.write_text(json.dumps(record))
    assert data_card(RunTraces.open(layout), {})["models"]["teacher"] == {"name": "model", "licence": "mit"}


def test_every_task_of_the_package_says_where_its_rows_are_from() -> None:
    assert PROVENANCE.keys() == TASKS.keys() - {"open_ended"}, "which has only rows of the user's own"


def test_in_words_it_names_no_place_of_this_machine(card: dict[str, Any], tmp_path: Path) -> None:
    text = data_card_markdown(card)
    assert str(tmp_path) not in text
    assert "| traces | 8 | 4 |" in text
    assert "| right | 6 (75.0 %) | 0 (0.0 %) |" in text
    assert "| prompts with negatives: live | 1 |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert "\n\n\n" not in text


def test_several_teachers_have_their_shares(layout: RunLayout) -> None:
    one = {"k": 4, "weight": 1.0, "traces": 40, "right": 30, "test": None, "path": "runs/traces/teacher-k"}
    teachers = [
        one | {"teacher": "models/teachers/a", "positives": 3, "share_of_positives": 0.75},
        one | {"teacher": "owner/b", "positives": 1, "share_of_positives": 0.25},
    ]
    text = data_card_markdown(data_card(RunTraces.open(layout), {"TEACH": {"teachers": teachers}}))
    assert "| owner/b | 4 | 40 | 30 | 1 | 25.0 % |" in text


def test_quantiles_are_numpy_s() -> None:
    lengths, drawn = Lengths(), [int(value) for value in np.random.default_rng(0).integers(1, 400, 501)]
    lengths.add(drawn)
    found = lengths.to_json()
    assert found is not None
    assert found["median"] == np.quantile(drawn, 0.5, method="inverted_cdf")
    assert found["p95"] == np.quantile(drawn, 0.95, method="inverted_cdf")
    assert Lengths().to_json() is None


def test_pairwise_overlap_needs_two() -> None:
    assert mean_pairwise_overlap(["a b"]) is None
    assert mean_pairwise_overlap(["a b", "a b", "c d"]) == pytest.approx(1 / 3)
    texts = ["one two three", "two three four", "three one two"]
    scorer = RougeScorer(["rougeL"])
    expected = statistics.mean(scorer.score(a, b)["rougeL"].fmeasure for a, b in combinations(texts, 2))
    assert mean_pairwise_overlap(texts) == pytest.approx(expected)
