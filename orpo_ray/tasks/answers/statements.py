r"""Finds where a completion states its answer: `#### 42`, `\boxed{42}`, "the answer is 42", "42 is the correct answer".

Nothing here knows whether an answer is a number, a label or a yes; readers do.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

WINDOW = 300
"""Characters after a phrase in which its answer is looked for."""
MOST = 64
"""Statements read at most, of each form and in all, the last ones: a model that loops may write a thousand."""


class Kind(Enum):
    """How the statement frames its answer, and so how its body is read."""

    FRAMED = "the body is the whole answer: \\boxed{…}, <answer>…</answer>"
    LEADS = "the body begins with the answer: ####, Answer:"
    SAYS = "the body's first sentence is about the answer: the answer is"
    CLAUSE = "the body is what comes before `is the correct answer`"
    CORRECTION = "the body begins with what replaces an earlier answer: wait, it's"


@dataclass(frozen=True)
class Statement:
    """`denied`: the statement says what the answer is not. `doubted`: a supposition or a question, not a statement."""

    position: int
    kind: Kind
    body: str
    denied: bool = False
    doubted: bool = False


_QUESTION = re.compile(r"^\W{0,8}(?:question|q|problem|user|human|instruction)\s*\d*\s*:", re.IGNORECASE | re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_ADVERBS = (
    r"(?:(?:definitely|clearly|certainly|probably|likely|obviously|simply|therefore|thus|then|hence|also|indeed|of course|"
    r"actually|really|necessarily|in fact|most likely|still|just|now)[\s,]+){0,3}"
)
_BE = (
    r"is|was|are|will\s+be|would\s+be|should\s+be|must\s+be|has\s+to\s+be|may\s+be|might\s+be|could\s+be|becomes|equals"
)
_NOT_BE = (
    r"isn't|wasn't|aren't|(?:can't|cannot|can\s+not|couldn't|could\s+not|shouldn't|should\s+not|won't|will\s+not|wouldn't|"
    r"would\s+not|must\s+not|mustn't|may\s+not|might\s+not)\s+be"
)
_NOUN = (
    r"(?:answer(?!\s+(?:choices|options))|ans(?=\s*[.:=])\.?|"
    r"(?:correct|right|best|final|appropriate|suitable|accurate|my)\s+(?:choice|option|response|result|solution|conclusion|one))"
)
_SAYS = re.compile(
    rf"\b(?P<noun>{_NOUN})\b(?P<gap>[^.!?:;=\n]{{0,80}}?)"
    rf"(?:(?P<colon>\s*(?:[:=]|=>|->|→|—|–|\s-\s))|\b(?:(?P<not_be>{_NOT_BE})|(?:{_BE}))\b)"
    rf"(?:\s*:)?[ \t]*(?P<not>{_ADVERBS}(?:not|never|neither|hardly)\b)?",
    re.IGNORECASE,
)
_LEADS = re.compile(r"^[^\w\n]{0,40}(?:(?:the|my|final|correct)\s+){0,2}answer\b(?=\s)", re.IGNORECASE | re.MULTILINE)
_HASHES = re.compile(r"(?<!#)#{4,6}(?!#)")
_TAG = re.compile(r"<answer>(.{1,300}?)(?:</answer>|$)", re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\f?boxed\s*")
_CLAUSE = re.compile(
    rf"\b(?:is|was|are|must\s+be|would\s+be|should\s+be|seems|(?P<not_be>{_NOT_BE}))\s+(?:to\s+be\s+)?"
    rf"(?P<not>{_ADVERBS}not\s+)?{_ADVERBS}"
    r"(?:(?P<wrong>incorrect|wrong|not\s+correct|false)(?=\s*(?:[.,;!]|$|\n|because|since|as\b))|"
    r"(?:the\s+|an?\s+|our\s+|my\s+)?(?:(?:only|most|best|correct|right|final|likely|appropriate|accurate|suitable)\s+)*"
    r"(?:answer|choice|option)\b|"
    r"(?:the\s+)?(?:(?:only\s+)?(?:correct|right|best)|most\s+(?:likely|suitable|appropriate|accurate|plausible))(?=\s*(?:[.,;!]|$|\n|because|since|as\b|here)))",
    re.IGNORECASE,
)
_CHOOSES = re.compile(
    r"\b(?:I|we)(?:'d|'ll|\s+would|\s+will|\s+should|\s+must)?\s+(?:choose|pick|select|go\s+with|chose|picked|selected|went\s+with)\b"
    r"|\b(?:choose|select|pick)\s+(?=(?:option|choice|answer)\b)",
    re.IGNORECASE,
)
_IT_IS = (
    r"(?:(?:it's|it\s+is|it\s+should\s+be|it\s+must\s+be|that\s+should\s+be|this\s+should\s+be|should\s+be|must\s+be|make\s+that|"
    r"that's|that\s+is|rather|really|i\s+think|so)\b[\s,.!…:;—–-]*)"
)
_CORRECTION = re.compile(
    r"\b(?:wait|actually|no|oops|sorry|correction|scratch\s+that|i\s+meant?|hmm+|in\s+fact|on\s+second\s+thought)\b"
    rf"(?:\s*[,.!…:;—–-]+\s*{_IT_IS}{{0,4}}|\s+{_IT_IS}{{1,4}})",
    re.IGNORECASE,
)
# What stands before the noun, up to it: "if the correct", "a common wrong", "I don't think the", "one might think the".
_LEAD_IN = r"(?:\s+that)?\s+(?:the|my|your|our|this|an?)(?:\s+\w+){0,2}\s*$"
_SUPPOSED = re.compile(
    rf"\b(?:if|whether|suppose|supposing|assume|assuming|unless){_LEAD_IN}"
    r"|\b(?:wrong|incorrect|false|tempting|other|another|previous|earlier|alternative|expected)\s+$"
    rf"|\b(?:you|one|some|people|students?|someone|it|many|others)\s+(?:\w+\s+)?(?:might|may|could|would|can)\s+(?:\w+\s+)?"
    rf"(?:think|say|seem|believe|assume|guess|argue|suspect|conclude)(?:\s+like)?{_LEAD_IN}"
    rf"|\b(?:thought|guessed|assumed){_LEAD_IN}",
    re.IGNORECASE,
)
_DISBELIEVED = re.compile(
    rf"(?:(?:n't|\bnot|\bnever)\s+(?:think|believe|mean|say|imply|feel|true|the\s+case|certain|sure|clear|that)|\bdoubt){_LEAD_IN}",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"(?:[,;—–-]\s*|\b)(?:but|rather|instead|it's|it\s+is)\b(?!\s+than)[\s,:]*"
    r"(?:(?:rather|instead|actually|in\s+fact|really|it's|it\s+is|that\s+is|is)\b[\s,:]*)*",
    re.IGNORECASE,
)


def statements(text: str) -> Iterator[Statement]:
    """Every statement of an answer in plain `text` (see `surface.plain`), in the order of the text."""
    yield from sorted(_found(text), key=lambda statement: statement.position)[-MOST:]


def new_question(text: str, start: int, end: int) -> bool:
    """Whether the model asks itself another question between two places, as small models ramble on to do."""
    return _QUESTION.search(text, start, end) is not None


def sentence(body: str) -> str:
    """The first sentence of `body`, without its full stop."""
    body = body.lstrip()
    end = _SENTENCE_END.search(body)
    return body[: end.start()] if end else body


def sentence_mark(body: str) -> str:
    """What the first sentence of `body` ends with: `.`, `!`, `?`, a line break, or nothing."""
    end = _SENTENCE_END.search(body.lstrip())
    return end[0] if end else ""


def contrasts(body: str) -> Iterator[str]:
    """What is set against a denial in its sentence: for "A, but B" and "A; it is B", the text from B on."""
    end = _SENTENCE_END.search(body)
    for match in _CONTRAST.finditer(body, 0, end.start() if end else len(body)):
        yield body[match.end() :]


def last_lines(text: str) -> Iterator[str]:
    """The lines that have a letter or digit, from the last; of a very long one its end."""
    return (line[-2 * WINDOW :] for line in reversed(text.split("\n")) if re.search(r"[^\W_]", line))


def _found(text: str) -> list[Statement]:
    folded = text.lower()
    found: list[Statement] = []
    for match in _last(_HASHES, text):
        if not _is_heading(text, match.end()):
            found.append(Statement(match.start(), Kind.LEADS, text[match.end() : match.end() + WINDOW]))
    for match in _last(_BOXED, text):
        found.append(Statement(match.start(), Kind.FRAMED, _braced(text, match.end())))
    if "answer" in folded:
        found += (Statement(match.start(), Kind.FRAMED, match[1]) for match in _last(_TAG, text))
        found += (_leading(match, Kind.LEADS) for match in _last(_LEADS, text))
    if any(word in folded for word in ("choose", "chose", "pick", "select", "with")):
        found += (_leading(match, Kind.LEADS) for match in _last(_CHOOSES, text))
    if any(word in folded for word in ("ans", "choice", "option", "respon", "result", "solution", "conclu", "one")):
        found += (_saying(match) for match in _last(_SAYS, text))
    if any(
        word in folded for word in ("answer", "correct", "right", "best", "choice", "option", "wrong", "false", "most")
    ):
        for match in _last(_CLAUSE, text):
            denied = bool(match["not_be"] or match["not"] or match["wrong"])
            found.append(Statement(match.start(), Kind.CLAUSE, _before(text, match.start()), denied=denied))
    if found:
        # Only what has been answered can be corrected.
        first = min(statement.position for statement in found)
        found += (_leading(match, Kind.CORRECTION) for match in _last(_CORRECTION, text, first))
    return found


def _leading(match: re.Match[str], kind: Kind) -> Statement:
    return Statement(match.start(), kind, match.string[match.end() : match.end() + WINDOW])


def _saying(match: re.Match[str]) -> Statement:
    before, body = _before(match.string, match.start("noun")), match.string[match.end() : match.end() + WINDOW]
    asks = not match["colon"] and sentence_mark(body) == "?"
    return Statement(
        match.start(),
        Kind.LEADS if match["colon"] else Kind.SAYS,
        body,
        denied=bool(match["not_be"] or match["not"] or _DISBELIEVED.search(before)),
        doubted=asks or bool(_SUPPOSED.search(before)),
    )


def _last(pattern: re.Pattern[str], text: str, start: int = 0) -> Iterable[re.Match[str]]:
    return deque(pattern.finditer(text, start), maxlen=MOST)


def _before(text: str, end: int) -> str:
    """The sentence that `end` lies in, up to it."""
    start = max(0, end - WINDOW)
    for match in _SENTENCE_END.finditer(text, start, end):
        start = match.end()
    return text[start:end]


def _braced(text: str, start: int) -> str:
    """The group in braces at `start`, nested ones whole; the line's rest where there is no brace or it is not closed."""
    if text[start : start + 1] != "{":
        return text[start : start + WINDOW].partition("\n")[0].split(" ")[0]
    depth = 0
    for index in range(start, min(len(text), start + 4 * WINDOW)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + 1 : index]
    return text[start + 1 : start + WINDOW].partition("\n")[0]


_NUMBERED = re.compile(r"(?<!#)#{4,6}[ \t]*(\d{1,2})[.):][ \t]+\S")


def _is_heading(text: str, hashes_end: int) -> bool:
    """Whether `#### 3. Add them up` numbers a section: it is the first, or one with the number before came earlier."""
    start = text.rfind("\n", 0, hashes_end) + 1
    match = _NUMBERED.search(text, start, min(len(text), hashes_end + 20))
    if match is None:
        return False
    number = int(match[1])
    earlier = {int(other[1]) for other in _NUMBERED.finditer(text, max(0, start - 20 * WINDOW), start)}
    return number == 1 or number - 1 in earlier
