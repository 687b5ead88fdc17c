"""The generated task: what its rows are, that its splits share no sum, and how an answer is judged."""

import random
import re

import pytest

from orpo_ray.errors import DataError
from orpo_ray.tasks import Row, Verdict, load_task
from orpo_ray.tasks.arithmetic import GAINS, ArithmeticTask, Problem, Step, draw_problem

SPLITS = ("train", "validation", "test")


def reckon(question: str) -> int:
    """The answer, read off the question's own words."""
    start = int(re.search(r"has (\d+)", question)[1])  # type: ignore[index]
    changes = re.findall(r"(\w+) (\d+)(?=,| and|\.)", question)
    return start + sum(int(amount) if verb in GAINS else -int(amount) for verb, amount in changes)


def sum_of(question: str) -> tuple[int, ...]:
    """What makes two problems the same sum: the numbers with their signs, without names."""
    changes = re.findall(r"(\w+) (\d+)(?=,| and|\.)", question)
    start = int(re.search(r"has (\d+)", question)[1])  # type: ignore[index]
    return (start, *(int(amount) if verb in GAINS else -int(amount) for verb, amount in changes))


def test_a_problem_asks_in_plain_words() -> None:
    steps = (Step("finds", 5, True), Step("loses", 3, False), Step("wins", 4, True))
    problem = Problem("Ana", "coins", 12, steps)
    assert problem.question == "Ana has 12 coins, finds 5, loses 3 and wins 4. How many coins does Ana have now?"
    assert problem.totals == [17, 14, 18]


def test_gold_is_what_the_question_says() -> None:
    task = ArithmeticTask(split="train", sizes={"train": 500})
    assert [task.gold(row) for row in task.rows()] == [str(reckon(row.data["question"])) for row in task.rows()]


def test_totals_never_fall_below_zero() -> None:
    rng = random.Random(0)
    assert all(min(draw_problem(rng, "pretrain").totals) >= 0 for _ in range(500))


def test_no_sum_is_in_two_splits_whatever_the_seeds() -> None:
    sums = {
        split: {
            sum_of(row.data["question"]) for row in ArithmeticTask(split=split, sizes={split: 2000}, seed=seed).rows()
        }
        for seed, split in enumerate(SPLITS)
    }
    rng = random.Random(9)
    sums["pretrain"] = {sum_of(draw_problem(rng, "pretrain").question) for _ in range(2000)}
    names = list(sums)
    shared = [(a, b) for a in names for b in names if a < b and sums[a] & sums[b]]
    assert shared == []


def test_rows_are_distinct_and_the_same_each_time() -> None:
    task = ArithmeticTask(split="train", sizes={"train": 3000}, seed=7)
    rows = task.rows()
    assert len({row.data["question"] for row in rows}) == len({row.id for row in rows}) == 3000
    assert rows == ArithmeticTask(split="train", sizes={"train": 3000}, seed=7).rows()
    assert rows != ArithmeticTask(split="train", sizes={"train": 3000}, seed=8).rows()


def test_a_larger_size_keeps_the_rows_of_a_smaller_one() -> None:
    few, many = (ArithmeticTask(split="test", sizes={"test": size}).rows() for size in (50, 400))
    assert many[:50] == few


def test_sizes_are_as_asked_and_have_defaults() -> None:
    assert len(ArithmeticTask(split="validation", sizes={"train": 5, "validation": 0}).rows()) == 0
    assert [len(ArithmeticTask(split=split).rows()) for split in SPLITS] == [800, 200, 500]
    assert len(ArithmeticTask(split="train", sizes={"train": None}).rows()) == 800


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("12 + 5 = 17. 17 - 3 = 14. The answer is 14.", Verdict.RIGHT),
        ("Gains: 5. Losses: 3. Together 12 + 5 = 17. 17 - 3 = 14. The answer is 14", Verdict.RIGHT),
        ("12 + 5 = 17. The answer is 17. No: 17 - 3 = 14. The answer is 14.", Verdict.RIGHT),
        ("12 + 5 = 17. 17 - 3 = 13. The answer is 13.", Verdict.WRONG),
        ("The answer is 140.", Verdict.WRONG),
        ("Ana starts with", Verdict.UNPARSED),
        ("", Verdict.UNPARSED),
    ],
)
def test_the_final_answer_is_judged(text: str, verdict: Verdict) -> None:
    row = Row("train-000000", "train", {"question": "…", "answer": "14"})
    task = ArithmeticTask()
    assert task.classify(row, text) is verdict
    assert task.verify(row, text) is (verdict is Verdict.RIGHT)


def test_it_is_found_by_its_name() -> None:
    task = load_task("arithmetic", split="test", sizes={"train": 10, "test": 3}, seed=1)
    assert isinstance(task, ArithmeticTask)
    assert [row.id for row in task.rows()] == ["test-000000", "test-000001", "test-000002"]


def test_a_path_is_refused() -> None:
    with pytest.raises(DataError, match=r"'arithmetic' generates its rows .* 'problems\.jsonl'"):
        load_task("arithmetic", "problems.jsonl")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="no split 'dev'; it has train, validation, test"):
        load_task("arithmetic", split="dev")
