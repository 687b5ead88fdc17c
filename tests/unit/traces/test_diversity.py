"""ROUGE-L against Google's rouge-score, the package whose measure it is."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from orpo_ray.traces.diversity import rouge_l, select_diverse

ORACLE = RougeScorer(["rougeL"], use_stemmer=False)
WORDS = [
    "so",
    "6",
    "times",
    "7",
    "is",
    "42",
    "apples",
    "and",
    "the",
    "answer",
    "is",
    "42",
    "Ärger",
    "naïve",
    "東京",
    "x2",
    "don't",
    "3.5",
    "İstanbul",
    "ǅ",
    "ß",
    "ﬁ",
]


def _oracle(a: str, b: str) -> float:
    return float(ORACLE.score(a, b)["rougeL"].fmeasure)


def test_worked_example() -> None:
    # Lin 2004, section 3.1: "police killed the gunman" against "police kill the gunman": LCS 3 of 4 and 4.
    assert rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(0.75, abs=1e-15)


def test_equal_to_rouge_score_on_random_texts() -> None:
    rng = random.Random(0)
    for _ in range(300):
        a, b = (" ".join(rng.choices(WORDS, k=rng.randrange(60))) for _ in range(2))
        assert rouge_l(a, b) == pytest.approx(_oracle(a, b), abs=1e-12)


@given(st.text(max_size=80), st.text(max_size=80))
def test_equal_to_rouge_score_on_any_unicode(a: str, b: str) -> None:
    assert rouge_l(a, b) == pytest.approx(_oracle(a, b), abs=1e-12)
    assert rouge_l(a, a) == pytest.approx(_oracle(a, a), abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [("", ""), ("", "a"), ("東京", "東京"), ("...", "a b")])
def test_a_text_without_tokens_overlaps_with_nothing(a: str, b: str) -> None:
    assert rouge_l(a, b) == _oracle(a, b) == 0.0


def _by_rouge_score(texts: list[str], max_overlap: float) -> list[int]:
    kept: list[int] = []
    for index, text in enumerate(texts):
        # Rounded: rouge-score's own rounding errors put an overlap of exactly 0.8 over 0.8.
        if all(round(_oracle(text, texts[other]), 12) <= max_overlap for other in kept):
            kept.append(index)
    return kept


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=8),
    st.sampled_from([0, 0.25, 0.5, 0.8, 1]),
)
def test_selection_equals_one_made_with_rouge_score(texts: list[str], max_overlap: float) -> None:
    assert select_diverse(texts, max_overlap) == _by_rouge_score(texts, max_overlap)


def test_only_what_is_over_the_threshold_is_dropped_and_only_against_the_kept() -> None:
    a, b, c = "1 2 3 4 5", "1 2 3 4 6", "1 2 3 7 6"
    assert rouge_l(a, b) == rouge_l(b, c) == 0.8
    assert select_diverse([a, b, c], 0.8) == [0, 1, 2]
    # b falls to a, and c, which is as near to b, stays: b is not there to compare with.
    assert rouge_l(a, c) == 0.6
    assert select_diverse([a, b, c], 0.79) == [0, 2]
    assert select_diverse([a, a, a], 0.8) == [0]
    assert select_diverse([], 0.8) == []


def test_fifty_times_as_fast_as_rouge_score() -> None:
    rng = random.Random(1)
    words = [f"w{n}" for n in range(200)]
    groups = [[" ".join(rng.choices(words, k=120)) for _ in range(8)] for _ in range(40)]
    start = time.process_time()
    for texts in groups:
        select_diverse(texts, 0.8)
    ours = (time.process_time() - start) / len(groups)
    start = time.process_time()
    for texts in groups[:2]:
        _by_rouge_score(texts, 0.8)
    assert (time.process_time() - start) / 2 > 50 * ours
