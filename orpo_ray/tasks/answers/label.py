"""Reads which option of a multiple-choice question is chosen: by label, by place, or by the option's text."""

import re
from collections.abc import Sequence

from orpo_ray.tasks.answers.options import Found, OptionTexts
from orpo_ray.tasks.answers.statements import last_lines

_ANY_LABELS = tuple("ABCDEFGH123456789")
_FILLERS = re.compile(
    r"(?:[\s\"'{<:=>*_-]+|(?:is|are|would\s+be|the|clearly|definitely|probably|likely|most\s+likely|simply|therefore|thus|that|"
    r"indeed|then|just|only|correct|right|best|final|one|answer|option|choice|letter|number|statement|only|labell?ed)\b(?=[\s:(\[*\"']))*",
    re.IGNORECASE,
)
_PLACED = re.compile(r"(?:option|choice|number|answer|letter)\W{1,4}$", re.IGNORECASE)
_LABEL = re.compile(
    r"(?P<open>[(\[{]\s*)?(?P<label>[A-Za-z]|\d{1,2})(?![\w%°²³])(?!['-]\w)(?![.,:]\d)(?P<shut>\s*[)\]}])?"
)
_BRACKET = re.compile(r"\s*\(")
_CLOSE = re.compile(r"\s*(?:[.,:;!?\"'\]})*]|\n|$|[-—–]\s|[—–])")
# "B because …" chooses B, "A plant" does not choose A.
_LINK = re.compile(
    r"\s+(?:because|since|as|for|due|which|where|that|this|it|so|but|and|given|based|according|with|is|here|rather|not|if|"
    r"in\s+this\s+case|while|whereas)\b"
)
_OTHER = re.compile(
    r"\s*[)\]}]?\s*(?:/|,|&|\||\bor\b|\band\b|,\s*(?:or|and)\b)\s*(?:option\s+)?[(\[]?(?:[A-H]|[a-h](?=[)\]])|\d)(?![\w'%])"
)
_CONCLUSION = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence|in\s+conclusion|overall|finally|then|but|however|because|since|also|only)\b[\s,:]*)*"
    r"(?:I\s+(?:think|believe|guess|would\s+say|am\s+sure)\s+(?:that\s+)?)?(?:(?:it|this|that)(?:'s|\s+(?:is|would\s+be|must\s+be))\s+)?",
    re.IGNORECASE,
)
_BEFORE_OPTION = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence)\b\W*)?(?:\W*(?:[A-Ha-h]|\d)[).:]\W*)?(?:(?:an?|the)\s+)?", re.IGNORECASE
)
_NEGATION = re.compile(
    r"\b(?:not|never|no|none|cannot|neither|nor|wrong|incorrect|except|unlike|without|rather\s+than|instead\s+of|eliminat\w+|"
    r"rule[sd]?\s+out)\b|n't\b",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"\b(?:option|choice|answer|statement)\s+[(\[]?([A-H]|\d)\b(?![\w'-])|[(\[]([A-Ha-h]|\d)[)\]]", re.IGNORECASE
)
_CONCLUDES = re.compile(
    r"\b(?:so|thus|therefore|hence|conclu\w+|answer|best|correct|right|choose|chose\w*|pick\w*|select\w*|must|leaves|fits|makes)\b",
    re.IGNORECASE,
)
_LIST_LINE = re.compile(r"^[^\w\n]{0,8}([A-Ha-h]|\d)[).:]\s", re.MULTILINE)
_OPENING = re.compile(
    r"\W*([A-Ha-h]|\d)(?:[).:]\s+(?!(?:is|was|are|isn't|can|can't|cannot|would|does|doesn't)\b)|[)\]]?[.:]?$)"
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+")


class LabelReader:
    """Answers as labels. Without `texts` any label from A to H or 1 to 9 is taken, and options' texts are not known."""

    def __init__(self, labels: Sequence[str] = (), texts: Sequence[str] = ()) -> None:
        self._labels = tuple(labels)
        self._texts = OptionTexts(texts) if texts else None

    def whole(self, body: str) -> str | None:
        body = body.strip().strip(".")
        if re.fullmatch(r"[A-Za-z]", body) and (label := self._label(body)) is not None:
            return label
        return self.leading(body) or self.within(body)

    def leading(self, body: str, *, closed: bool = False) -> str | None:
        filled = _end(_FILLERS, body)
        # An article or "the one" may be the option's own first word, so its text is tried from the start as well.
        text = None
        for start in (_spaces(body), filled):
            found = self._texts.leading(body, start) if self._texts else None
            if found and (text is None or found.tokens > text.tokens) and self._stands(body, found):
                text = found
        label, end = self._leading_label(body, filled, closed)
        if text is not None and (label is None or (text.tokens > 1 and text.end > end and text.start < end)):
            # "E. coli" is the option of that text, not label E; in "A. a plant" the label stands outside the text.
            return self._labels[text.index]
        return label

    def within(self, clause: str) -> str | None:
        if _NEGATION.search(clause):
            return None
        named = {self._label(match[1] or match[2]) for match in _NAMED.finditer(clause)} - {None}
        if named:
            # Of options gone through one by one, the last is not chosen for being last.
            return named.pop() if len(named) == 1 and _CONCLUDES.search(clause) else None
        found = self._texts.within(clause) if self._texts else []
        # A word of one or two letters ("up", "s") may be there by chance.
        indices = {one.index for one in found if one.end - one.start > 2 or one.tokens > 1}
        return self._labels[indices.pop()] if len(indices) == 1 else None

    def trailing(self, clause: str) -> str | None:
        for part in (clause, clause.rpartition(", ")[2]):
            part = part[_end(_CONCLUSION, part) :]
            if (answer := self._subject(part)) is not None:
                return answer
            found = self._texts.leading(part, _end(_FILLERS, part)) if self._texts else None
            if found and not re.search(r"\w", part[found.end :]):
                return self._labels[found.index]
        return None

    def unstated(self, text: str) -> str | None:
        line, first = next(last_lines(text), ""), text.strip().partition("\n")[0]
        # Options told over again, line by line, are no answer.
        lists_options = len(set(_LIST_LINE.findall(text))) > 1
        if not (lists_options and _LIST_LINE.match(line)):
            if (answer := self._is_option(line)) is not None:
                return answer
            for sentence in reversed(_SENTENCES.split(line)):
                if (answer := self._concluded(sentence)) is not None:
                    return answer
                if _NEGATION.search(sentence):
                    break
        # "B) dry palms", or B, then an explanation.
        opens = None if lists_options else _OPENING.match(first)
        return self._label(opens[1]) if opens else None

    def _concluded(self, sentence: str) -> str | None:
        return self.leading(sentence[_end(_CONCLUSION, sentence) :], closed=True) or self.within(sentence)

    def _is_option(self, line: str) -> str | None:
        """The label of a line that is one option's text and no more, with its label or a "therefore" before it or not."""
        for found in self._texts.within(line) if self._texts else ():
            if _BEFORE_OPTION.fullmatch(line, 0, found.start) and not re.search(r"\w", line[found.end :]):
                return self._labels[found.index]
        return None

    def _subject(self, clause: str) -> str | None:
        """The label that is all of a clause but fillers: "Only option (B)", "B, dry palms,"."""
        match = _LABEL.match(clause, _end(_FILLERS, clause))
        if match is None or _OTHER.match(clause, match.end()) or (match["label"].islower() and not match["shut"]):
            return None
        rest = clause[match.end() :].strip(" .,:;*)-—–\"'")
        if not rest or match["shut"] or _CLOSE.match(clause, match.end()):
            return self._label(match["label"])
        return None

    def _leading_label(self, body: str, start: int, closed: bool) -> tuple[str | None, int]:
        """The label at `start`, if it is one and not the article or a word of the answer, and where it ends."""
        match = _LABEL.match(body, start)
        if match is None or _OTHER.match(body, match.end("label")):
            return None, start
        letter, end = match["label"], match.end()
        if letter.isdigit() and self._is_quantity(letter, body, start):
            return None, start
        own = self._texts.leading(body, end) if self._texts else None
        sure = bool(_CLOSE.match(body, end)) or (own is not None and self._labels[own.index] == self._label(letter))
        if not closed:
            # Only A is an article too; other letters are words of an answer ("B cells") where options' texts say so.
            sure = sure or bool(match["shut"] or _LINK.match(body, end) or letter in "BCDEFGH")
        return (self._label(letter) if sure else None), end

    def _is_quantity(self, digits: str, body: str, start: int) -> bool:
        """Whether a bare number is more likely what the options are about than an option's place."""
        if digits in self._labels or not self._labels or self._texts is None:
            return False
        return not _PLACED.search(body[:start]) and self._texts.holds_token(digits)

    def _label(self, written: str) -> str | None:
        """The row's label for a label as written: letters and numbers stand for each other by place (B for 2)."""
        label = written.upper()
        if not self._labels:
            return label if label in _ANY_LABELS else None
        if label in self._labels:
            return label
        place = int(label) - 1 if label.isdigit() else ord(label) - ord("A")
        mixed = label.isdigit() != self._labels[0].isdigit()
        return self._labels[place] if mixed and 0 <= place < len(self._labels) else None

    def _stands(self, body: str, found: Found) -> bool:
        """Whether an option's text ends where the answer does: "40 m." is not option 40."""
        return found.tokens > 2 or any(pattern.match(body, found.end) for pattern in (_CLOSE, _LINK, _BRACKET))


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0


def _spaces(text: str) -> int:
    return len(text) - len(text.lstrip(" \t\n\"'*:"))
