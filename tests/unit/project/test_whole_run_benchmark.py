"""What the whole-run benchmark compares, and with what; nothing is run here."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import by_hand, whole_run
from orpo_ray.config import load_config


def test_a_whole_run_is_compared_round_by_round_and_its_parts_by_medians() -> None:
    def side(wall: float, part: float) -> dict[str, Any]:
        return {"wall_s": wall, "parts_s": {"TEACH": part}}

    runs = {
        "run": [side(50.0, 1.0), side(80.0, 5.0), side(60.0, 2.0)],
        "script": [side(100.0, 3.0), side(100.0, 4.0), side(200.0, 9.0)],
    }
    found = whole_run.summary(runs)
    assert found["ratio"] == 0.5
    assert found["wall_s"] == {"run": 60.0, "script": 100.0}
    assert found["parts_s"] == {"run": {"TEACH": 2.0}, "script": {"TEACH": 4.0}}


def test_run_and_script_read_one_configuration_which_is_valid(tmp_path: Path) -> None:
    file = whole_run.written(argparse.Namespace(epochs=2, prompts=64, test=32), tmp_path)
    config = load_config(file)
    assert (config.train.epochs, config.task.train_size, config.task.test_size) == (2, 64, 32)
    assert (config.policy.refresh, config.policy.max_staleness) == ("epoch", 0)
    assert Path(str(config.teacher.model)).is_dir()
    assert Path(config.student.model).is_dir()


@pytest.fixture
def script(tmp_path: Path) -> by_hand.Script:
    file = whole_run.written(argparse.Namespace(epochs=1, prompts=8, test=4), tmp_path)
    return by_hand.Script(load_config(file), by_hand.Clock())


def test_the_script_keeps_right_traces_or_wrong_ones_that_differ(script: by_hand.Script) -> None:
    row = script._train[0]
    gold = row.data["answer"]
    right, wrong = f"The answer is {gold}", f"He has none left at all. The answer is {gold}9"
    texts = [right, wrong, wrong, ""]
    assert script._diverse(row, texts, right=True) == [right]
    assert script._diverse(row, texts, right=False) == [wrong]


def test_the_script_matches_as_a_run_does_and_passes_over_prompts_without_a_wrong_trace(script: by_hand.Script) -> None:
    class Tokenizer:
        chat_template = None

        def apply_chat_template(self, messages: Any, **_: Any) -> str:
            return str(messages[-1]["content"])

    few, none, many = rows = script._train[:3]
    positives = {row.id: ["a", "b", "c"] for row in rows}
    negatives = {few.id: ["x"], none.id: [], many.id: ["x", "y", "z"]}
    pairs = script._pairs(Tokenizer(), rows, positives, negatives, epoch=1)
    by_prompt = {
        row.id: [pair for pair in pairs if row.data["question"] in pair["prompt"]] for row in rows
    }  # fmt: skip
    assert {prompt: len(found) for prompt, found in by_prompt.items()} == {few.id: 2, none.id: 0, many.id: 2}
    assert {pair["rejected"] for pair in by_prompt[few.id]} == {"x"}
    assert len({pair["chosen"] for pair in by_prompt[few.id]}) == 2
