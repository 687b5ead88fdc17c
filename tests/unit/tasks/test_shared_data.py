"""Every row of the real files: counted, its gold answer right in each form that models write, every other answer refused."""

import json
from pathlib import Path

import pytest

from orpo_ray.tasks import Verdict, load_task
from orpo_ray.tasks.multiple_choice import ChoiceTask

# (task, file, rows as the files' README counts them)
CHOICE_FILES = [
    ("arc_challenge", "arc_challenge_train.jsonl", 1119),
    ("arc_challenge", "arc_challenge_validation.jsonl", 299),
    ("openbookqa", "openbookqa_train.jsonl", 4957),
    ("medqa", "medqa_sample.jsonl", 300),
    ("medqa", "medqa_4_options_sample.jsonl", 300),
]
FORMS = [
    "So the answer is ({label}). The other options fail.",
    "**Answer:** {label}",
    r"\boxed{{{label}}}",
    "The answer is {text}.",
    "{label}. {text}",
    "Therefore, {text}.",
]


@pytest.mark.parametrize(("name", "file", "count"), CHOICE_FILES)
def test_choices(shared_data: Path, name: str, file: str, count: int) -> None:
    task = load_task(name, str(shared_data / file))
    assert isinstance(task, ChoiceTask)
    rows = task.rows()
    assert len(rows) == count
    assert len({row.id for row in rows}) == count
    lines = (shared_data / file).read_text(encoding="utf-8").splitlines()
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        record = json.loads(line)
        assert task.gold(row) == record.get("answerKey", record.get("answer_idx"))
        options = task.options(row.data)
        for index, (label, text) in enumerate(options.items()):
            # Every form for the gold answer; for each wrong one, one of them in turn.
            right = label == task.gold(row)
            forms = FORMS if right else [FORMS[(index + number) % len(FORMS)]]
            for form in forms:
                completion = form.format(label=label, text=text)
                assert task.verify(row, completion) is right, (row.id, completion)


def test_gsm8k(shared_data: Path) -> None:
    task = load_task("gsm8k", str(shared_data / "gsm8k_train.jsonl"))
    rows = task.rows()
    assert len(rows) == 7473
    assert len({row.id for row in rows}) == 7473
    unmarked = 0
    for index, row in enumerate(rows):
        gold, solution = task.gold(row), task.solution(row)
        assert solution is not None
        number = int(gold.replace(",", ""))
        for right in (
            solution,
            rf"So \boxed{{{number}}}.",
            f"**Answer:** ${number}.00",
            f"The answer is {gold} apples.",
        ):
            assert task.verify(row, right), (row.id, right)
        for wrong in (f"#### {number + 1}", f"The answer is not {gold}."):
            assert not task.verify(row, wrong), (row.id, wrong)
        if index % 8 == 0:
            unmarked += task.verify(row, solution.rpartition("####")[0])
    # A solution cut before its `#### N` is read by its close, where a person would mostly find the answer too.
    assert unmarked / (len(rows) / 8) > 0.98


def test_strategyqa(shared_data: Path) -> None:
    task = load_task("strategyqa", str(shared_data / "strategyqa_train.jsonl"))
    rows = task.rows()
    assert len(rows) == 2061
    assert sum(task.gold(row) == "yes" for row in rows) == sum(row.data["answer"] for row in rows)
    forms = [
        "The answer is {0}.",
        "**Answer:** {1}",
        "{1}, because he did.",
        r"\boxed{{\text{{{1}}}}}",
        "Therefore, {0}.",
    ]
    for row in rows:
        gold = task.gold(row)
        other = "no" if gold == "yes" else "yes"
        facts = " ".join(row.data["facts"])
        for form in forms[:2]:
            assert task.verify(row, f"{facts}\n{form.format(gold, gold.title())}"), row.id
            assert task.classify(row, f"{facts}\n{form.format(other, other.title())}") is Verdict.WRONG, row.id
        for form in forms:
            assert task.verify(row, form.format(gold, gold.title())), (row.id, form)


def test_the_copies_in_openbookqa_keep_to_one_part(shared_data: Path) -> None:
    sizes = {"train": None, "validation": 500, "test": 500}
    path = str(shared_data / "openbookqa_train.jsonl")
    parts = {split: load_task("openbookqa", path, split=split, sizes=sizes, seed=7).rows() for split in sizes}
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 3957, "validation": 500, "test": 500}
    stems = [{row.data["question_stem"] for row in rows} for rows in parts.values()]
    # 4,957 rows have 4,835 different stems.
    assert sum(map(len, stems)) == len(set.union(*stems)) == 4835
