"""Recorded traces: found by the prompt's id or question, refused with file and line where they are broken."""

import asyncio
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orpo_ray.errors import DataError, InputError
from orpo_ray.tasks import Row, load_task
from orpo_ray.teacher.protocol import Sample, Teacher
from orpo_ray.teacher.recorded import DatasetTeacher, check_recorded, check_solutions, load_recorded, recorded_traces
from tests.tiny.sums import SumsTask

ROW = Row("7", "train", {"question": "What is  2 + 3?"})


def say(teacher: Teacher, row: Row = ROW, k: int = 8) -> list[Sample]:
    return asyncio.run(teacher.sample(row, [], k=k, temperature=1, top_p=1, max_tokens=1, seed=0))


def write(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_traces_are_found_by_id_and_by_question_whatever_its_spacing_and_case(tmp_path: Path) -> None:
    path = write(
        tmp_path / "traces.jsonl",
        {"prompt_id": "7", "text": "first"},
        {"question": "what is 2 + 3?", "trace": "second", "finish_reason": "length"},
        {"prompt_id": "8", "text": "another prompt's"},
        {"prompt_id": 7, "text": "third", "truncated": False},
    )
    check_recorded(path, [ROW])
    assert say(load_recorded(path)) == [Sample("first"), Sample("third"), Sample("second", truncated=True)]
    assert say(load_recorded(path), k=1) == [Sample("first")]
    assert say(load_recorded(path), Row("9", "train", {})) == []


def test_parquet_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "traces.parquet"
    pq.write_table(pa.table({"prompt_id": ["7"], "text": ["from a table"]}), path)
    assert say(load_recorded(str(path))) == [Sample("from a table")]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "whose?"}, "missing field 'prompt_id' or 'question'; the fields there are 'text'"),
        ({"prompt_id": "7"}, "missing field 'text' or 'trace'; the fields there are 'prompt_id'"),
        ({"prompt_id": "7", "text": " "}, "field 'text' is not a text with something in it"),
        ({"prompt_id": "7", "trace": 5}, "field 'trace' is not a text with something in it"),
        ({"question": 5, "text": "a"}, "field 'question' is not text"),
    ],
)
def test_a_broken_record_is_named_by_file_and_line(tmp_path: Path, record: object, message: str) -> None:
    path = write(tmp_path / "traces.jsonl", {"prompt_id": "7", "text": "fine"}, record)
    with pytest.raises(DataError, match=rf"traces.jsonl:2: {message}"):
        list(recorded_traces(path))


def test_traces_of_other_prompts_are_refused_with_an_example_of_both(tmp_path: Path) -> None:
    path = write(tmp_path / "traces.jsonl", {"prompt_id": "train-0", "text": "a"})
    with pytest.raises(InputError, match=r"its first names 'train-0', and the prompts' ids are like '7'"):
        check_recorded(path, [ROW])


def test_a_data_sets_own_solutions_are_its_teacher(tmp_path: Path) -> None:
    answer = "Half of 48 is 48/2 = <<48/2=24>>24.\n#### 24"
    task = load_task("gsm8k", write(tmp_path / "rows.jsonl", {"question": "Half of 48?", "answer": answer}))
    (row,) = task.rows()
    check_solutions(task, [row])
    (sample,) = say(DatasetTeacher(task), row)
    assert sample == Sample("Half of 48 is 48/2 = 24.\n#### 24")
    assert task.verify(row, sample.text)


def test_a_task_without_solutions_is_refused() -> None:
    task = SumsTask()
    with pytest.raises(InputError, match="the rows of task 'sums' hold no worked solutions"):
        check_solutions(task, task.rows())
