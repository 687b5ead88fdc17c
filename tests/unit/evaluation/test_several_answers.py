"""pass@k and majority@k."""

from itertools import combinations

import pytest

from orpo_ray.evaluation.several_answers import counted_ks, majority, pass_at_k


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
