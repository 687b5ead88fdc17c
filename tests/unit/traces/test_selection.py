"""Only traces that fit are kept, and of two that are alike the first."""

from orpo_ray.traces.selection import Choice, choose

KEPT, DUPLICATE, UNFIT = Choice.KEPT, Choice.NEAR_DUPLICATE, Choice.UNFIT


def test_first_come_first_kept_among_those_that_fit() -> None:
    texts = ["one two three four", "one two three four", "one two three four", "five six seven eight"]
    assert choose(texts, [False, True, True, True], 0.8) == [UNFIT, KEPT, DUPLICATE, KEPT]


def test_an_unfit_trace_never_makes_another_a_duplicate() -> None:
    assert choose(["a b c", "a b c"], [False, True], 0.0) == [UNFIT, KEPT]


def test_overlap_equal_to_the_bound_is_kept() -> None:
    # ROUGE-L F of these is 2·(4/5)·(4/5)/(4/5+4/5) = 0.8.
    texts = ["a b c d e", "a b c d x"]
    assert choose(texts, [True, True], 0.8) == [KEPT, KEPT]
    assert choose(texts, [True, True], 0.79) == [KEPT, DUPLICATE]


def test_nothing_of_nothing() -> None:
    assert choose([], [], 0.8) == []
