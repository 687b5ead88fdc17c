import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.errors import DataError
from orpo_ray.tasks import Row, split_rows
from orpo_ray.tasks.splits import question_key


def _rows(questions: list[str]) -> list[Row]:
    return [Row(str(index), "all", {"question": question}) for index, question in enumerate(questions)]


def _ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]


def test_parts_are_of_the_asked_sizes_disjoint_in_order_and_named() -> None:
    parts = split_rows(_rows([f"q{n}" for n in range(100)]), {"train": 50, "validation": 20, "test": 30}, seed=0)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 50, "validation": 20, "test": 30}
    assert sorted(int(row.id) for rows in parts.values() for row in rows) == list(range(100))
    for name, rows in parts.items():
        assert [int(row.id) for row in rows] == sorted(int(row.id) for row in rows)
        assert {row.split for row in rows} == {name}


@given(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=10, max_size=60), st.integers(0, 5))
def test_equal_questions_never_fall_into_two_parts(questions: list[str], seed: int) -> None:
    parts = split_rows(_rows(questions), {"train": None, "test": 0}, seed)
    assert len(parts["train"]) == len(questions)
    half = len(questions) // 2
    try:
        parts = split_rows(_rows(questions), {"train": None, "validation": half // 2, "test": half // 3}, seed)
    except DataError:
        return  # no choice of whole questions adds up to these sizes
    keys = [{question_key(row) for row in rows} for rows in parts.values()]
    assert sum(len(key) for key in keys) == len(set.union(*keys))
    assert [len(rows) for rows in parts.values()][1:] == [half // 2, half // 3]


def test_case_and_spacing_make_no_other_question() -> None:
    assert len({question_key(row) for row in _rows(["Why  now?", "why now?", " WHY NOW?\n"])}) == 1
    same_stem = [Row("0", "all", {"question_stem": "The sun is", "choices": n}) for n in (1, 2)]
    assert question_key(same_stem[0]) == question_key(same_stem[1])


def test_more_training_rows_or_another_order_leave_the_held_out_ones() -> None:
    rows = _rows([f"q{n}" for n in range(200)])
    few = split_rows(rows, {"train": 20, "validation": 10, "test": 30}, seed=3)
    many = split_rows(rows[::-1], {"train": None, "validation": 10, "test": 30}, seed=3)
    assert set(_ids(few["test"])) == set(_ids(many["test"]))
    assert set(_ids(few["validation"])) == set(_ids(many["validation"]))
    assert set(_ids(few["train"])) < set(_ids(many["train"]))
    other = split_rows(rows, {"train": 20, "validation": 10, "test": 30}, seed=4)
    assert _ids(other["test"]) != _ids(few["test"])


def test_the_same_in_every_process() -> None:
    # By `for i in $(seq 0 11); do printf "0\0q$i" | b2sum | sed "s/-/q$i/"; done | sort | head -4`.
    parts = split_rows(_rows([f"q{n}" for n in range(12)]), {"train": None, "test": 4}, seed=0)
    assert _ids(parts["test"]) == ["0", "4", "5", "9"]


def test_too_few_rows_are_counted_in_the_message() -> None:
    with pytest.raises(DataError, match=r"train 8, test 5 asked, and there are 12 \(11 questions\)"):
        split_rows(_rows([*(f"q{n}" for n in range(11)), "q0"]), {"train": 8, "test": 5}, seed=0)
