"""Brings a completion to plain text: the reading of answers then need not know Markdown, LaTeX or typography."""

import re

# 5 000 with the narrow or unbreakable space that groups digits.
_GROUPING_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
# Full-width forms, typographic signs and spaces, to their ASCII twins.
_TWINS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord(sign): twin
    for signs, twin in (
        ("\u2212\u2010\u2011\u2012\ufe63", "-"),
        ("\u2018\u2019\u02bc", "'"),
        ("\u201c\u201d", '"'),
        ("\u00a0\u2002\u2003\u2009\u200a\u202f\u3000", " "),
        ("\u200b\u200c\u200d\u2060\ufeff", ""),
        ("\u2044\u2215", "/"),
        ("\u22c5", "·"),
        ("\u3002", "."),
    )
    for sign in signs
}
_VULGAR = {
    ord(sign): f" {numerator}/{denominator}"
    for sign, numerator, denominator in (
        ("½", 1, 2), ("⅓", 1, 3), ("⅔", 2, 3), ("¼", 1, 4), ("¾", 3, 4), ("⅕", 1, 5), ("⅖", 2, 5), ("⅗", 3, 5), ("⅘", 4, 5),
        ("⅙", 1, 6), ("⅚", 5, 6), ("⅛", 1, 8), ("⅜", 3, 8), ("⅝", 5, 8), ("⅞", 7, 8),
    )
}  # fmt: skip

_LATEX_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:bf|rm|it|sf|bb|tt)|mbox|operatorname|boldsymbol|bm|emph|underline)"
    r"\s*\{([^{}]*)\}"
)
_LATEX = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}|\\,(?=\d{3})", ","),  # 1{,}234 and 1\,234
        (r"\\[,!]|\\(?:left|right|displaystyle|Big|big)\b(?![a-z])", ""),
        (r"\\(?:quad|qquad)\b|\\[;: ]|~(?!~)", " "),
        (r"\\[dt]frac\b", r"\\frac"),
        (r"\^\s*\{?\s*\\circ\s*\}?", "°"),
        (r"\\[()\[\]]", " "),
        (r"\\([%#&_])", r"\1"),
        (r"\\?\$", ""),
    )
)
_LATEX_SIGN = re.compile(r"[\\$~]|\{,\}")
_MARKDOWN = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"<<[^<>\n]*>>", ""),  # GSM8K's calculator notes
        (r"~~[^~\n]*~~", ""),  # struck out
        (r"(?i)<br\s*/?>", "\n"),
        (r"(?i)</?(?:b|i|u|em|strong|p|span|div|code)(?:\s[^<>\n]*)?>", ""),
        (r"(?<=\d)\*\*(?=\d)", "^"),  # a power
        (r"\*\*|__|`", ""),
        (r"(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])", r"\1"),
        (r"(?<!\w)_([^\s_](?:[^_\n]*[^\s_])?)_(?!\w)", r"\1"),
    )
)
_MARKDOWN_SIGN = re.compile(r"[<~*_`]")


def plain(text: str) -> str:
    """`text` without thinking block, typography, Markdown emphasis and LaTeX style.

    What carries meaning stays: line breaks, `####`, `\\boxed{…}`, and mathematics such as `\\frac{1}{2}`.
    """
    after = text.rpartition("</think>")[2]
    text = _GROUPING_SPACE.sub(",", after if after.strip() else text).translate(_TWINS).translate(_VULGAR)
    if _MARKDOWN_SIGN.search(text):
        text = _replaced(text, _MARKDOWN)
    if _LATEX_SIGN.search(text):
        # Twice or so: \textbf{\text{B}}. Bounded, since a completion may hold anything.
        for _ in range(4):
            text, count = _LATEX_STYLE.subn(r"\1", text)
            if not count:
                break
        text = _replaced(text, _LATEX)
    return text


def _replaced(text: str, patterns: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, replacement in patterns:
        text = pattern.sub(replacement, text)
    return text
