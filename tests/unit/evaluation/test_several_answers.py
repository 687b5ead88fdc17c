"""pass@k and majority@k."""

from itertools import combinations

import pytest

from orpo_ray.evaluation.several_answers import counted_ks, majority, pass_at_k, several_answers
from orpo_ray.tasks import Row
from tests.tiny.sums import SumsTask


@pytest.mark.parametrize("samples", [1, 4, 7])
def test_pass_at_k_is_the_share_of_all_choices_with_a_right_one(samples: int) -> None:
    for right in range(samples + 1):
        for k in range(1, samples + 1):
            choices = list(combinations([place < right for place in range(samples)], k))
            assert pass_at_k(right, samples, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_refuses_more_answers_than_were_sampled() -> None:
    with pytest.raises(ValueError, match="pass@5"):
        pass_at_k(1, 4, 5)


@pytest.mark.parametrize(
    ("answers", "place"),
    [(["3", "4", "4"], 1), (["3", "4"], 0), ([None, "4", None], 1), ([None, None], None), ([], None)],
)
def test_majority(answers: list[str | None], place: int | None) -> None:
    assert majority(answers) == place


@pytest.mark.parametrize(("samples", "ks"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
def test_told_ks(samples: int, ks: list[int]) -> None:
    assert counted_ks(samples) == ks


def test_several_answers_to_each_row() -> None:
    """3 + 4: two of four right, and most say 7. 1 + 1: one right, but most say 5, and one says nothing."""
    first, second = Row("a", "test", {"a": 3, "b": 4}), Row("b", "test", {"a": 1, "b": 1})
    answers = [
        (first, ["the answer is 7", "the answer is 7", "the answer is 8", "the answer is 9"]),
        (second, ["the answer is 2", "the answer is 5", "the answer is 5", "who knows"]),
    ]
    found = several_answers(SumsTask("test"), answers)
    # pass@2: 1 - C(2,2)/C(4,2) = 5/6 and 1 - C(3,2)/C(4,2) = 1/2.
    assert found == pytest.approx({"pass@1": 3 / 8, "pass@2": (5 / 6 + 1 / 2) / 2, "pass@4": 1.0, "majority@4": 0.5})
