"""The line that asks the student a question."""

import ast
import json
import shlex
from pathlib import Path

import pytest

from orpo_ray.report.trial import trial_line


def parsed(line: str) -> list[object]:
    """The string and list literals of the Python code in the line, which must be one shell command."""
    python, option, code = shlex.split(line)
    assert (bool(python), option) == (True, "-c")
    return [ast.literal_eval(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant | ast.List)]


def test_a_model_without_a_chat_template_is_asked_as_the_run_asked_it(tmp_path: Path) -> None:
    assert "What is 1 + 2?\n\nAnswer:\n" in parsed(trial_line(tmp_path, ["What is 1 + 2?"]))


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_model_gets_a_message(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert [{"role": "user", "content": 'Say "hi"'}] in parsed(trial_line(tmp_path, ['Say "hi"']))


def test_the_shortest_question_without_an_apostrophe_is_taken(tmp_path: Path) -> None:
    asked = parsed(trial_line(tmp_path, ["Tom's?", "How many apples\nare left?", "How many are left?"]))
    assert "How many are left?\n\nAnswer:\n" in asked
    assert "Tom's?\n\nAnswer:\n" in parsed(trial_line(tmp_path, ["Tom's?"]))


@pytest.mark.parametrize("prompts", [[], ["long " * 200]])
def test_without_a_short_question_the_student_is_served(tmp_path: Path, prompts: list[str]) -> None:
    assert trial_line(tmp_path / "my export", prompts) == f"vllm serve '{tmp_path}/my export'"


def test_paths_are_short_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "runs/toy/export" in parsed(trial_line(tmp_path / "runs/toy/export", ["What is 1 + 2?"]))
