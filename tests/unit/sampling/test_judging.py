"""Which sampled traces become negatives: wrong ones always, unparsed and truncated ones by option, right ones never."""

import pytest

from orpo_ray.config.method import NegativesConfig
from orpo_ray.engine.vllm_engine import Completion
from orpo_ray.errors import VerifierError
from orpo_ray.sampling.judging import judge_traces
from orpo_ray.tasks import Row, Verdict
from orpo_ray.traces.selection import Choice
from tests.tiny.broken import BrokenTask
from tests.tiny.sums import SumsTask

ROW = Row("2+3", "train", {"a": 2, "b": 3})
TASK = SumsTask()

RIGHT = "Two and three: the answer is 5"
WRONG = "Two and three: the answer is 6"
OTHER_WRONG = "I count on from two and so the answer is 7"
UNPARSED = "no idea at all"


def completion(text: str, *, truncated: bool = False, tokens: int = 4) -> Completion:
    return Completion([9] * tokens, text, truncated, logp=-1.0, version="1")


def judged(completions: list[Completion], rouge_l_max: float = 1.0, **options: str) -> list[tuple[Verdict, Choice]]:
    negatives = NegativesConfig.model_validate(options)
    return [(item.verdict, item.choice) for item in judge_traces(TASK, ROW, completions, negatives, rouge_l_max)]


def kept(completions: list[Completion], **options: str) -> list[bool]:
    return [choice is Choice.KEPT for _, choice in judged(completions, **options)]


def test_wrong_traces_are_negatives_and_right_ones_never() -> None:
    assert judged([completion(RIGHT), completion(WRONG), completion(OTHER_WRONG)]) == [
        (Verdict.RIGHT, Choice.UNFIT),
        (Verdict.WRONG, Choice.KEPT),
        (Verdict.WRONG, Choice.KEPT),
    ]


@pytest.mark.parametrize(("unparsed", "is_kept"), [("keep", True), ("drop", False)])
def test_an_unparsed_trace_is_its_own_class(unparsed: str, is_kept: bool) -> None:
    [(verdict, choice)] = judged([completion(UNPARSED)], unparsed=unparsed)
    assert verdict is Verdict.UNPARSED
    assert (choice is Choice.KEPT) is is_kept


@pytest.mark.parametrize(("truncated", "is_kept"), [("keep", True), ("drop", False)])
@pytest.mark.parametrize("text", [WRONG, UNPARSED])
def test_a_trace_cut_by_length_goes_by_its_own_option(text: str, truncated: str, is_kept: bool) -> None:
    """Whatever the other option says: a cut trace could not state its answer."""
    for unparsed in ("keep", "drop"):
        assert kept([completion(text, truncated=True)], truncated=truncated, unparsed=unparsed) == [is_kept]


def test_a_right_answer_before_the_cut_is_no_negative() -> None:
    assert kept([completion(RIGHT, truncated=True)], truncated="keep") == [False]


def test_the_defaults_keep_unparsed_and_drop_truncated() -> None:
    assert kept([completion(UNPARSED), completion(WRONG, truncated=True)]) == [True, False]


def test_an_empty_trace_is_nothing_to_contrast_with() -> None:
    assert kept([completion("", tokens=0)], unparsed="keep", truncated="keep") == [False]


def test_near_duplicates_are_thinned_first_come_first_kept() -> None:
    """WRONG twice with another number: 6 of 7 words in common, ROUGE-L 6/7."""
    near = completion("Two and three: the answer is 8")
    choices = [choice for _, choice in judged([completion(WRONG), near, completion(OTHER_WRONG)], rouge_l_max=0.8)]
    assert choices == [Choice.KEPT, Choice.NEAR_DUPLICATE, Choice.KEPT]
    assert all(choice is Choice.KEPT for _, choice in judged([completion(WRONG), near], rouge_l_max=0.9))


def test_a_right_trace_shadows_no_wrong_one() -> None:
    """Thinning compares negatives with negatives."""
    choices = [choice for _, choice in judged([completion(RIGHT), completion(WRONG)], rouge_l_max=0.5)]
    assert choices == [Choice.UNFIT, Choice.KEPT]


def test_a_verifier_that_breaks_is_an_error_that_names_the_row() -> None:
    row = Row("1+1", "train", {"a": 1, "b": 1})
    with pytest.raises(VerifierError, match=r"task broken, row 1\+1: LookupError: no table for this sum"):
        judge_traces(BrokenTask(), row, [completion(WRONG)], NegativesConfig(), 0.8)
