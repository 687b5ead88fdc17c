"""Reads a number told in words, as `forty-two`."""

import re

_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: value for value, word in enumerate(_SMALL)} | {word: 10 * (i + 2) for i, word in enumerate(_TENS)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_WORD = "|".join(sorted((*_VALUES, *_SCALES), key=len, reverse=True))
_NUMBER = re.compile(rf"\s*(?:{_WORD})\b(?:(?:[\s-]+and\b)?[\s-]+(?:{_WORD})\b)*", re.IGNORECASE)
# "Two of them", "one more thing" are no answers: one word of unit at most, and the clause ends.
_END = re.compile(r"(?:\s+[^\W\d_]+)?\s*(?:[.,;!)]|$|\n)")


def read_words(text: str) -> str | None:
    """The number that `text` begins with and is told in words, as digits; None where it begins with none."""
    match = _NUMBER.match(text)
    if match is None or not _END.match(text, match.end()):
        return None
    total = group = 0
    for word in re.findall(r"[a-z]+", match[0].lower()):
        if word == "hundred":
            group = max(group, 1) * 100
        elif word in _SCALES:
            total, group = total + max(group, 1) * _SCALES[word], 0
        elif word != "and":
            group += _VALUES[word]
    return str(total + group)
