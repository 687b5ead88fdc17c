"""The task for lm-evaluation-harness: its documents, and the function that the harness would call (which is not installed)."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from orpo_ray.config import RunConfig
from orpo_ray.evaluation.lm_eval import marker, write_lm_eval_task
from orpo_ray.tasks.prompts import render_prompt
from orpo_ray.tasks.split_of import split_of
from tests.tiny.models import make_model
from tests.tiny.runs import tiny_config


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("student"))


@pytest.fixture
def config(tmp_path: Path, student: Path) -> RunConfig:
    return tiny_config(tmp_path, student, task={"name": "arithmetic", "test_size": 5})


class FunctionTag(yaml.SafeLoader):
    """Reads `!function module.name` as the harness does, to a name."""


FunctionTag.add_constructor("!function", lambda loader, node: ("function", loader.construct_scalar(node)))  # type: ignore[arg-type]


def test_the_task_is_what_the_harness_documents(config: RunConfig, student: Path, tmp_path: Path) -> None:
    """docs/task_guide.md of lm-evaluation-harness, 'Configurations'."""
    out = tmp_path / "lm-eval"
    command = write_lm_eval_task(config, student, out)
    task: dict[str, Any] = yaml.load((out / "orpo_ray_arithmetic.yaml").read_text(), FunctionTag)
    assert task["task"] == "orpo_ray_arithmetic"
    assert (task["dataset_path"], task["test_split"], task["output_type"]) == ("json", "test", "generate_until")
    assert task["doc_to_text"] == "{{prompt}}"
    assert task["generation_kwargs"] == {"until": ["</s>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 12}
    assert task["process_results"] == ("function", "verify.process_results")
    assert task["metric_list"] == [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    assert Path(task["dataset_kwargs"]["data_files"]["test"]) == out / "rows.jsonl"
    assert command[command.index("--include_path") + 1] == str(out)
    assert command[command.index("--tasks") + 1] == "orpo_ray_arithmetic"


def test_the_student_is_asked_as_it_was_while_it_was_evaluated(
    config: RunConfig, student: Path, tmp_path: Path
) -> None:
    write_lm_eval_task(config, student, tmp_path / "lm-eval")
    lines = [json.loads(line) for line in (tmp_path / "lm-eval/rows.jsonl").read_text().splitlines()]
    task, tokenizer = split_of(config.task, "test", config.seed), AutoTokenizer.from_pretrained(student)
    assert [line["id"] for line in lines] == [row.id for row in task.rows()]
    for line, row in zip(lines, task.rows(), strict=True):
        # The harness encodes without special tokens of the tokenizer's own.
        assert tokenizer(line["prompt"], add_special_tokens=False).input_ids == render_prompt(
            tokenizer, task.messages(row)
        )


def test_an_answer_is_marked_as_we_mark_it(config: RunConfig, student: Path, tmp_path: Path) -> None:
    out = tmp_path / "lm-eval"
    write_lm_eval_task(config, student, out)
    spec = importlib.util.spec_from_file_location("verify", out / "verify.py")
    assert spec is not None
    assert spec.loader is not None
    verify = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(verify)
    line = json.loads((out / "rows.jsonl").read_text().splitlines()[0])
    assert verify.process_results(line, [f"The answer is {line['gold']}."]) == {"acc": 1.0}
    assert verify.process_results(line, [f"The answer is {int(line['gold']) + 1}."]) == {"acc": 0.0}
    assert verify.process_results(line, ["I do not know."]) == {"acc": 0.0}


def test_a_judge_goes_along(tmp_path: Path) -> None:
    judge = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "cache": str(tmp_path / "marks"), "retries": 0}
    (tmp_path / "task.json").write_text(json.dumps({"name": "open_ended", "judge": judge}))
    right = marker(tmp_path)
    line = {"id": "a", "row": json.dumps({"question": "Why?"})}
    assert right(line, "   ") is False, "an empty answer is not asked about"
