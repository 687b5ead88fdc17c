"""A run's test questions as a task of EleutherAI's lm-evaluation-harness, so that it can score the exported student.

    lm-eval/orpo_ray_gsm8k.yaml   the task
    lm-eval/rows.jsonl            its questions, rendered as the student was asked them while it was evaluated
    lm-eval/verify.py             marks an answer by this package's verifier, which must be installed beside lm-eval
    lm-eval/task.json             which task, and which judge, if any

The harness's own tasks of the same name ask otherwise (few-shot, without the instruction) and read answers otherwise.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.config.judge import JudgeConfig
from orpo_ray.tasks import Row, Task
from orpo_ray.tasks.judged import JudgedTask
from orpo_ray.tasks.prompts import render_prompt, rendered
from orpo_ray.tasks.registry import load_task
from orpo_ray.tasks.split_of import split_of

_YAML = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: generate_until
num_fewshot: 0
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{gold}}}}"
generation_kwargs:
  until: [{end}]
  do_sample: {samples}
  temperature: {temperature}
  max_gen_toks: {tokens}
process_results: !function verify.process_results
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
_VERIFY = '''\
"""Marks an answer as orpo_ray does."""

from pathlib import Path

from orpo_ray.evaluation.lm_eval import marker

_right = marker(Path(__file__).parent)


def process_results(doc, results):
    return {"acc": float(_right(doc, results[0]))}
'''


def write_lm_eval_task(config: RunConfig, student: Path, directory: Path) -> list[str]:
    """Write the task; returns the command line that scores `student` with it.

    Raises:
        DataError: the task's rows cannot be read.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(student), trust_remote_code=config.student.trust_remote_code)
    task = split_of(config.task, "test", config.seed)
    name = "orpo_ray_" + re.sub(r"\W+", "_", config.task.name).strip("_").lower()
    directory.mkdir(parents=True, exist_ok=True)
    rows = directory / "rows.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for row in task.rows():
            line = {
                "id": row.id,
                "prompt": rendered(tokenizer, task.messages(row)),
                "gold": task.gold(row),
                # As text: the harness's reader wants the same fields in each row, whatever the data holds.
                "row": json.dumps(dict(row.data), ensure_ascii=False, default=str),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    yaml = _YAML.format(
        name=name,
        rows=json.dumps(str(rows.resolve())),
        end=json.dumps(tokenizer.eos_token),
        samples=str(config.eval.temperature > 0).lower(),
        temperature=config.eval.temperature,
        tokens=config.eval_max_tokens,
    )
    (directory / f"{name}.yaml").write_text(yaml, encoding="utf-8")
    (directory / "verify.py").write_text(_VERIFY, encoding="utf-8")
    judge = config.task.judge.model_dump(mode="json") if config.task.judge is not None else None
    (directory / "task.json").write_text(json.dumps({"name": config.task.name, "judge": judge}, indent=1))
    first = task.rows()[0]
    return _command(name, student, directory, needs_bos=_needs_bos(tokenizer, task, first))


def marker(directory: Path) -> Callable[[Mapping[str, Any], str], bool]:
    """Whether a completion answers a line of rows.jsonl rightly; called by the harness, by way of verify.py.

    Raises:
        VerifierError: the verifier broke; it names the row.
    """
    about = json.loads((directory / "task.json").read_text(encoding="utf-8"))
    task = load_task(about["name"])
    if about["judge"] is not None:
        task = JudgedTask(task, JudgeConfig.model_validate(about["judge"]))

    def right(line: Mapping[str, Any], text: str) -> bool:
        return task.verify(Row(line["id"], "test", json.loads(line["row"])), text)

    return right


def _needs_bos(tokenizer: Any, task: Task, row: Row) -> bool:
    """Whether the student was asked behind a begin token that the rendered text does not hold."""
    messages = task.messages(row)
    begins = render_prompt(tokenizer, messages)[:1] == [tokenizer.bos_token_id]
    return begins and not rendered(tokenizer, messages).startswith(str(tokenizer.bos_token))


def _command(name: str, student: Path, directory: Path, *, needs_bos: bool) -> list[str]:
    model = f"pretrained={student}" + (",add_bos_token=True" if needs_bos else "")
    return [
        "lm_eval", "--model", "hf", "--model_args", model, "--tasks", name, "--include_path", str(directory),
        "--batch_size", "8",
    ]  # fmt: skip
