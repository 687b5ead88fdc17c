"""How alike two traces are, by ROUGE-L, and which of many differ enough to be kept (arXiv 2509.25100, sampling of traces).

The score is that of Google's rouge-score, `rougeL` without a stemmer, to the last digits; the longest common subsequence is
found by rapidfuzz, bit-parallel, on integer tokens.
"""

import re
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

# rouge-score keeps runs of ASCII letters and digits, once lower-cased; all other writing separates them.
_TOKEN = re.compile(r"[a-z0-9]+")


def rouge_l(a: str, b: str) -> float:
    """The F-measure of rouge-score's `rougeL`, from 0 to 1; 0 where a text has no token, even if both have none."""
    ids: dict[str, int] = {}
    return _f_measure(_tokens(a, ids), _tokens(b, ids))


def select_diverse(texts: Sequence[str], max_overlap: float) -> list[int]:
    """The indices of the texts to keep, first come first kept: those whose ROUGE-L with each kept one is <= `max_overlap`."""
    ids: dict[str, int] = {}
    kept: list[int] = []
    kept_tokens: list[list[int]] = []
    for index, text in enumerate(texts):
        tokens = _tokens(text, ids)
        if all(_f_measure(tokens, other) <= max_overlap for other in kept_tokens):
            kept.append(index)
            kept_tokens.append(tokens)
    return kept


def _tokens(text: str, ids: dict[str, int]) -> list[int]:
    """The tokens of `text` as numbers, each new one numbered on into `ids`."""
    return [ids.setdefault(token, len(ids)) for token in _TOKEN.findall(text.lower())]


def _f_measure(a: list[int], b: list[int]) -> float:
    if not a or not b:
        return 0.0
    common = LCSseq.similarity(a, b)
    if common == 0:
        return 0.0
    # In the steps of rouge-score, so that rounding falls out alike where the score meets a threshold.
    precision, recall = common / len(b), common / len(a)
    return 2 * precision * recall / (precision + recall)
