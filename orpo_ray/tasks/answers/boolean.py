"""Reads yes and no."""

import re

from orpo_ray.tasks.answers.statements import last_lines

_VALUES = {
    "yes": "yes", "yeah": "yes", "yep": "yes", "true": "yes", "correct": "yes",
    "no": "no", "nope": "no", "false": "no", "incorrect": "no",
}  # fmt: skip
_ALWAYS = ("yes", "yeah", "yep")
_FILLERS = re.compile(
    r"(?:[\s\"'(\[{<:=>*_-]+|(?:clearly|definitely|probably|likely|most\s+likely|simply|therefore|thus|that|a|an|just|the|option|"
    r"statement|claim|final|answer|is)\b(?=[\s:]))*",
    re.IGNORECASE,
)
_VALUE = re.compile(r"(?P<value>yes|yeah|yep|true|no|nope|false)\b(?!['-]\w)", re.IGNORECASE)
_OTHER = re.compile(r"\s*(?:/|,|\||or\b|and\b)\s*[\"']?(?:yes|no|true|false)\b", re.IGNORECASE)
_CLOSE = re.compile(r"\s*(?:[\"')\]}>.,;:!—–\n]|-\s|$)")
# "No because …" is an answer; "no one", "no longer" are not.
_LINK = re.compile(
    r"\s+(?:because|since|as|for|due|given|but|so|it|he|she|they|the|this|that|these|in|based|and|according|if|while|"
    r"not|although|there)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(r"\W*(yes|no)\b(?=\s*(?:[,.;:!—–\n]|-\s|$))", re.IGNORECASE)
_CONCLUSION = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence|in\s+conclusion|in\s+summary|overall|finally|then)\b[\s,:]*)+"
    r"(?:(?:the\s+answer|it|this|that)\s+(?:is|would\s+be|must\s+be)\s+)?",
    re.IGNORECASE,
)
_STATEMENT_IS = re.compile(
    r"\b(?:statement|claim|assertion|question|this|that|it)\s+(?:is|would\s+be|must\s+be)\s+"
    r"(?P<not>(?:\w+\s+)?not\s+)?(?:\w+ly\s+)?(?P<value>true|false|correct|incorrect)\b(?=\s*(?:[.,;!]|$))",
    re.IGNORECASE,
)


class YesNoReader:
    """Answers `yes` and `no`; `true` and `false` are read as these."""

    def whole(self, body: str) -> str | None:
        return self.leading(body)

    def leading(self, body: str, *, closed: bool = False) -> str | None:
        start = _end(_FILLERS, body)
        match = _VALUE.match(body, start)
        if match is None or _OTHER.match(body, match.end()):
            return None
        value = match["value"].lower()
        if _CLOSE.match(body, match.end()) or (not closed and (value in _ALWAYS or _LINK.match(body, match.end()))):
            return _VALUES[value]
        return None

    def within(self, clause: str) -> str | None:
        values = list(_VALUE.finditer(clause))
        if any(_OTHER.match(clause, match.end()) for match in values) or re.search(r"\bnot\b|n't\b", clause):
            return None
        found = {_VALUES[match["value"].lower()] for match in values if _CLOSE.match(clause, match.end())}
        return found.pop() if len(found) == 1 else None

    def trailing(self, clause: str) -> str | None:
        words = re.findall(r"\w+", clause.lower())
        return _VALUES.get(words[-1]) if words and words[-1] in ("yes", "no", "true", "false") else None

    def unstated(self, text: str) -> str | None:
        last = next(last_lines(text), "")
        for sentence in reversed(re.split(r"(?<=[.!?])\s+", last)):
            conclusion = _CONCLUSION.match(sentence)
            if (value := self.leading(sentence[conclusion.end() if conclusion else 0 :], closed=True)) is not None:
                return value
            if (match := _STATEMENT_IS.search(sentence)) and not match["not"]:
                return _VALUES[match["value"].lower()]
        opening = _OPENING.match(text)
        return _VALUES[opening[1].lower()] if opening else None


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0
