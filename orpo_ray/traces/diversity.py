"""How alike two traces are, by ROUGE-L, and which of many differ enough to be kept (arXiv 2509.25100, sampling of traces).

The score is that of Google's rouge-score, `rougeL` without a stemmer, to rounding; the longest common subsequence is
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
    # 2PR / (P + R) with P = common / len(b) and R = common / len(a), rounded once: an overlap of exactly 4/5 is 0.8, where
    # rouge-score's own steps give 0.8000000000000002, which would be over a threshold that it only meets.
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b))
