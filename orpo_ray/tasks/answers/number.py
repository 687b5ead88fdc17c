r"""Reads numbers: `42`, `$1,234.00`, `-3/4`, `3 1/2`, `25%`, `1.5 million`, `forty-two`, `\frac{1}{2}`, and expressions.

An answer comes out as digits without commas, currency, unit or idle zeros, so that equal answers are mostly equal text; an
expression that is no plain number (`6 \times 7`) comes out as written, for `symbolic` to compare.
"""

import re
from fractions import Fraction

from orpo_ray.tasks.answers.number_words import read_words
from orpo_ray.tasks.answers.statements import last_lines

# 1,234 and 1,00,000 but not 42,00; no number ends amid digits (12:30, 1.2.3). Fifty digits are no answer but a loop.
_DIGITS = r"(?:\d{1,3}(?:,\d{2,3}){0,12},\d{3}|\d{1,50})(?:\.\d{1,50})?|\.\d{1,50}"
_NOT_AMID = r"(?![\d_]|[,.:]\d|(?:st|nd|rd|th)\b)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]\s?)?(?P<whole>{_DIGITS}){_NOT_AMID}"
    rf"(?:(?P<gap>\s+)?(?P<over>(?(gap)\d{{1,9}}\s?/\s?|\s?/\s?))(?P<below>\d{{1,20}}){_NOT_AMID})?"
    r"(?P<power>[eE][-+]?\d{1,2}(?![\w.]))?(?![eE][-+]?\d)(?P<percent>\s?(?:%|percent\b|per\s+cent\b))?"
    r"(?P<scale>\s(?:hundred|thousand|million|billion|trillion)\b)?"
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_FRACTION = re.compile(r"(?P<sign>-?)\s*\\frac\s*(?:\{(-?\d{1,20})\}|(\d))\s*(?:\{(\d{1,20})\}|(\d))")
_CURRENCY = re.compile(r"(?:US)?[€£¥₹]\s*|(?:USD|US|EUR|Rs\.?)\s*(?=[-\d.])", re.IGNORECASE)
_FILLERS = re.compile(
    r"(?:\n\s*[-•+*]\s+|[\s\"'({\[<:=≈>*_]+|-(?=\s*[^\s\d.\\])|(?:is|are|the|an?|total|sum|of|about|around|roughly|approximately|exactly|simply|just|only|"
    r"therefore|thus|then|so|now|that|there|it|equal\s+to|equals|given\s+by|answer|final|correct|value|number|amount|option)\b(?=[\s:=])|"
    r"[a-zA-Z]\w{0,12}\s*=(?!=)|[€£¥₹])*",
    re.IGNORECASE,
)
# After a number, with its unit or none: what follows makes it part of a sum or an equation.
_OPERATOR = re.compile(
    r"\s*(?:[^\W\d_]+\s*){0,2}(?:[*×÷·/^+=]|-\s*[\d(\\]|\\(?:times|cdot|div|frac|sqrt|pi|pm)\b|x\s+\d|[a-z]\s*[-+^=])"
)
_ALTERNATIVE = re.compile(r"\s*(?:[^\W\d]+\s+)?(?:or|to|through|–|—)\s*[€£¥₹]?\d")
_CLOSED = re.compile(r"(?:\s*[^\W\d_]+){0,2}\s*(?:[.,;!)\"'\]]|$|\n)")
_RESULT = re.compile(r"[=≈]|\brounds?\s+(?:(?:up|down|off)\s+)?to\b|\bwhich\s+is\b")
_UNIT_POWER = re.compile(r"\s?[a-zA-Z]{1,3}\^\{?[23]")
_CLAUSE_END = re.compile(r"[.;](?=\s|$)|,\s")
_UNIT = re.compile(r"(?:[^\d=+*×÷^!\\]|\^[23]|\^\{[23]\})*$")
_EXPRESSION = re.compile(
    r"(?:\\(?:frac|sqrt|times|cdot|div|pi|pm|binom)(?![a-zA-Z])|[\d.,+*/^(){}! ×÷·π√=-]|(?<![a-zA-Z\\])[a-z](?![a-zA-Z]))+"
)
# Beyond these sympy may compute for minutes: towers of powers, long exponents, factorials of large numbers.
_COSTLY = re.compile(
    r"\^[^+]*\^|\^\s*[{(]?\s*-?\d{4,}|\d{4,}\s*\)?!|!!|\^\s*[{(][^{}()]*[*×·]|\^\s*[{(]?\s*\(?.{0,20}!"
)
_NEGATED = re.compile(r"(?:\bnot|n't|\bnever)\s+(?:\w+\s+){0,3}[€£¥₹]?$", re.IGNORECASE)
# "40 or 44", "between 40 and 44", "42, 43": two answers are none.
_ONE_OF_TWO = re.compile(r"\d\s*%?\s*(?:,|;|or|to|and|through|–|—)\s*$")
_THEREFORE = re.compile(r"^\W*(?:(?:so|thus|therefore|hence|then|and|but|however|only)\b\W*)+", re.IGNORECASE)
_LIST_MARK = re.compile(r"(?m)^[ \t]*(?:(?:step\s+)?\d{1,2}[.):]|[-•+*])\s", re.IGNORECASE)


def value(answer: str) -> Fraction | None:
    """The value of an answer that is one plain number, a percentage by its number (25% is 25); None for any other text."""
    found = _parse(answer.strip())
    return found[1] if found and found[2] == len(answer.strip()) else None


class NumberReader:
    """Answers as canonical number text, or as an expression."""

    def whole(self, body: str) -> str | None:
        body = body.strip().rstrip(".")
        found = _parse(body, _end(_FILLERS, body))
        if found and _UNIT.match(body, found[2]):
            return found[0]
        tail = body.rpartition("=")[2]
        if tail != body:
            return self.whole(tail)
        return _expression(body) or read_words(body)

    def leading(self, body: str, *, closed: bool = False) -> str | None:
        start = _end(_FILLERS, body)
        found = _parse(body, start)
        if found is None:
            return read_words(body[start:]) or (None if closed else _expression(body[start:]))
        text, _, end = found
        if closed and not _CLOSED.match(body, end):
            return None
        if _ALTERNATIVE.match(body, end):
            return None
        if _OPERATOR.match(body, end) and not _UNIT_POWER.match(body, end):
            clause = _CLAUSE_END.split(body[start:].partition("\n")[0])[0]
            *_, tail = clause.rpartition("=")
            if tail == clause:
                return _expression(clause) or text
            # "42 = 6 * 7" gives its answer first, "6 * 7 = 42" last.
            last = self.leading(tail)
            return last if last is not None and value(last) is not None else text
        return text

    def within(self, clause: str) -> str | None:
        *before, tail = _RESULT.split(clause)
        if before and (answer := self.leading(tail)) is not None:
            return answer
        numbers = _numbers(clause)
        return numbers[-1] if numbers else None

    def trailing(self, clause: str) -> str | None:
        subject = _THEREFORE.sub("", clause.rpartition(", ")[2])
        answer = self.leading(subject, closed=True)
        # The number alone, or with its unit: "4 eggs are eaten, so this" names none.
        return answer if len(subject.split()) <= 3 else None

    def unstated(self, text: str) -> str | None:
        for line in last_lines(_LIST_MARK.sub(" ", text)):
            if (answer := self.within(line)) is not None:
                return answer
        return None


def _parse(text: str, start: int = 0) -> tuple[str, Fraction, int] | None:
    """The number at `start`: its canonical text, its value, and where it ends."""
    if match := _FRACTION.match(text, start):
        top, bottom = int(match[2] or match[3]), int(match[4] or match[5])
        if match["sign"]:
            top = -top
        return (f"{top}/{bottom}", Fraction(top, bottom), match.end()) if bottom else None
    sign = re.compile(r"-\s?(?=[€£¥₹])").match(text, start)
    position = sign.end() if sign else start
    if currency := _CURRENCY.match(text, position):
        position = currency.end()
    match = _NUMBER.match(text, position)
    return None if match is None else _valued(match, negative=sign is not None)


def _valued(match: re.Match[str], *, negative: bool) -> tuple[str, Fraction, int] | None:
    negative ^= (match["sign"] or "").startswith("-")
    digits = match["whole"].replace(",", "")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".") or "0"
    number = Fraction(digits)
    text = str(number) if number.denominator == 1 else digits if digits[0] != "." else f"0{digits}"
    if match["below"]:
        below = int(match["below"])
        if not below:
            return None
        if match["gap"]:  # 3 1/2
            number += Fraction(int(match["over"].strip(" /")), below)
            text = str(number)
        else:
            number, text = number / below, f"{text}/{below}"
    factor = Fraction(f"1{match['power']}" if match["power"] else 1)
    if match["scale"]:
        factor *= _SCALES[match["scale"].strip()]
    if factor != 1:
        number *= factor
        text = str(number) if number.denominator == 1 else format(float(number), "g")
    if negative and number:
        number, text = -number, f"-{text}"
    return text + ("%" if match["percent"] else ""), number, match.end()


def _numbers(clause: str) -> list[str | None]:
    """The plain numbers of `clause`; without those denied, None in place of one of two."""
    numbers: list[str | None] = []
    position = 0
    while position < len(clause):
        if not re.match(r"[-+.\d€£¥₹]|\\frac", clause[position : position + 5]) or _is_amid(clause, position):
            position += 1
            continue
        found = _parse(clause, position)
        if found is None:
            position = re.compile(r"[-+€£¥₹]|[\w.,:]+|\\frac").match(clause, position).end()  # type: ignore[union-attr]
            continue
        before = clause[max(0, position - 80) : position]
        if not _NEGATED.search(before):
            numbers.append(None if _ONE_OF_TWO.search(before) else found[0])
        position = found[2]
    return numbers


def _is_amid(clause: str, position: int) -> bool:
    """Whether a number at `position` would be part of a word (`H2O`), of a longer number, or its sign a minus or hyphen."""
    near = clause[max(0, position - 10) : position]
    before = near[-1:]
    if clause[position] in "+-":
        hyphen = before.isalnum() or before in tuple(")]}")
        # "5 - 3" and "5 -3" subtract; "fell to -3" does not.
        return hyphen or near.rstrip()[-1:].isdigit() or near.rstrip().endswith((")", "]", "}"))
    return before.isalpha() or before == "_" or bool(re.search(r"\d[.,:/]$", near))


def _expression(text: str) -> str | None:
    """The mathematical expression that `text` begins with, if it is one that can be computed at no great cost."""
    match = _EXPRESSION.match(re.sub(r"(?<=\d)\s*[xX]\s*(?=\d)", r" \\times ", text))
    if match is None:
        return None
    expression = match[0].rstrip(" .,=+-*/").strip()
    while expression.count("}") > expression.count("{") and expression.endswith("}"):
        expression = expression[:-1]
    while expression.count(")") > expression.count("(") and expression.endswith(")"):
        expression = expression[:-1]
    mathematical = re.search(r"\d|\\pi|π", expression) and re.search(r"[-+*/^×÷·!√π]|\\", expression)
    if not mathematical or len(expression) > 200 or _COSTLY.search(expression):
        return None
    return expression.replace("·", r"\cdot ").replace("π", r"\pi ").replace(")(", r")\cdot(")


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0
