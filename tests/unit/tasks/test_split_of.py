"""Splits that have files of their own share no question with the others."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import parse_config
from orpo_ray.config.place import TaskConfig
from orpo_ray.errors import DataError
from orpo_ray.tasks import Row, question_key
from orpo_ray.tasks.split_of import split_of


def write(file: Path, questions: list[str]) -> str:
    lines = [{"question": question, "answer": f"So it is #### {len(question)}"} for question in questions]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def asked(count: int, first: int = 0) -> list[str]:
    return [f"How many is {number}?" for number in range(first, first + count)]


def task_config(**options: Any) -> TaskConfig:
    data = {"task": {"name": "gsm8k"} | options, "teacher": {"model": "t"}, "student": {"model": "s"}}
    return parse_config(data).task


def keys(rows: list[Row] | Any) -> set[str]:
    return {question_key(row) for row in rows}


def test_training_questions_of_the_test_file_are_left_out_and_counted(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", asked(30))
    # Spacing and case make no other question.
    test = write(tmp_path / "test.jsonl", [question.upper().replace(" ", "  ") for question in asked(10, first=25)])
    config = task_config(path=train, test_path=test, test_size=8)
    task = split_of(config, "train", 0)
    assert keys(task.rows()) == {question.casefold() for question in asked(25)}
    assert task.left_out == 5
    test_task = split_of(config, "test", 0)
    assert (len(test_task.rows()), test_task.left_out) == (8, 0)


def test_the_asked_training_size_is_kept_where_enough_is_left(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", asked(30)), write(tmp_path / "test.jsonl", asked(10))
    assert len(split_of(task_config(path=train, test_path=test, train_size=20), "train", 0).rows()) == 20
    with pytest.raises(DataError, match=r"train 21,.*there are 20.*; 10 more are left out"):
        split_of(task_config(path=train, test_path=test, train_size=21), "train", 0)


def test_another_test_size_leaves_the_training_rows_as_they_are(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", asked(30)), write(tmp_path / "test.jsonl", asked(10))
    few, many = (
        split_of(task_config(path=train, test_path=test, train_size=15, test_size=size), "train", 0).rows()
        for size in (2, 9)
    )
    assert few == many


def test_three_files_that_overlap_share_nothing(tmp_path: Path) -> None:
    config = task_config(
        path=write(tmp_path / "train.jsonl", asked(30)),
        validation_path=write(tmp_path / "validation.jsonl", asked(10, first=20)),
        test_path=write(tmp_path / "test.jsonl", asked(10, first=25)),
        test_size=10,
    )
    parts = {split: split_of(config, split, 0) for split in ("train", "validation", "test")}
    assert {split: len(task.rows()) for split, task in parts.items()} == {"train": 20, "validation": 5, "test": 10}
    assert {split: task.left_out for split, task in parts.items()} == {"train": 10, "validation": 5, "test": 0}
    assert len(set().union(*(keys(task.rows()) for task in parts.values()))) == 35


def test_a_test_split_cut_off_the_training_file_has_no_validation_question(tmp_path: Path) -> None:
    config = task_config(
        path=write(tmp_path / "train.jsonl", asked(30)),
        validation_path=write(tmp_path / "validation.jsonl", asked(10)),
        test_size=10,
    )
    parts = {split: split_of(config, split, 0) for split in ("train", "validation", "test")}
    assert {split: len(task.rows()) for split, task in parts.items()} == {"train": 10, "validation": 10, "test": 10}
    assert len(set().union(*(keys(task.rows()) for task in parts.values()))) == 30


def test_a_task_that_travels_has_the_same_rows(tmp_path: Path) -> None:
    config = task_config(
        path=write(tmp_path / "train.jsonl", asked(30)), test_path=write(tmp_path / "test.jsonl", asked(10))
    )
    task = split_of(config, "train", 0)
    sent = pickle.dumps(task)
    assert len(sent) < 1500
    assert pickle.loads(sent).rows() == task.rows()


class FileTask:
    """A user's own task that reads a file and leaves the cutting to the package."""

    def __init__(self, path: str, split: str) -> None:
        lines = Path(path).read_text().splitlines()
        self._rows = [Row(f"{split}-{at}", split, json.loads(line)) for at, line in enumerate(lines)]

    def rows(self) -> list[Row]:
        return self._rows

    def prompt(self, row: Row) -> str:
        return str(row.data["question"])

    def extract(self, text: str) -> str:
        return text

    def gold(self, row: Row) -> str:
        return str(row.data["answer"])

    def verify(self, row: Row, text: str) -> bool:
        return text == self.gold(row)


def test_a_users_own_task_is_kept_apart_too(tmp_path: Path) -> None:
    config = task_config(
        name=f"{__name__}:FileTask",
        path=write(tmp_path / "train.jsonl", asked(30)),
        test_path=write(tmp_path / "test.jsonl", asked(10)),
        train_size=12,
        test_size=5,
    )
    task = split_of(config, "train", 0)
    assert len(task.rows()) == 12
    assert task.left_out == 10
    sent = pickle.dumps(task)
    assert len(sent) < 1500, "the object that holds the rows stays behind"
    assert pickle.loads(sent).rows() == task.rows()
    assert pickle.loads(sent).verify(task.rows()[0], task.gold(task.rows()[0]))
    assert not keys(task.rows()) & {question.casefold() for question in asked(10)}
