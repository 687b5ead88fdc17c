"""Which of a prompt's traces count: those that fit, thinned to diverse ones (PAPER.md, steps 2 and 3)."""

from collections.abc import Sequence
from enum import Enum

from orpo_ray.traces.diversity import select_diverse


class Choice(Enum):
    """What became of one trace."""

    KEPT = "kept"
    NEAR_DUPLICATE = "near_duplicate"
    UNFIT = "unfit"


def choose(texts: Sequence[str], fits: Sequence[bool], rouge_l_max: float) -> list[Choice]:
    """Judge each trace of one prompt: first come, first kept.

    Args:
        texts: the prompt's traces, in the order they were sampled.
        fits: whether a trace may count at all: right ones of a teacher, wrong ones of a student.
        rouge_l_max: a fitting trace whose ROUGE-L F with a kept one is above this is a near-duplicate.
    """
    candidates = [place for place, fit in enumerate(fits) if fit]
    diverse = {candidates[index] for index in select_diverse([texts[place] for place in candidates], rouge_l_max)}
    return [
        (Choice.KEPT if place in diverse else Choice.NEAR_DUPLICATE) if fit else Choice.UNFIT
        for place, fit in enumerate(fits)
    ]
