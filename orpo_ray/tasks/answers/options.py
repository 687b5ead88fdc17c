"""Finds an option's own text in what a model wrote."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from orpo_ray.tasks.answers.surface import plain

# Numbers whole, words whole, and every sign that is not punctuation: 40 m/s is not 40 m, +1 not -1, 5% not 5.
_TOKEN = re.compile(r"(?:(?<![\w)])-(?=\.?\d))?\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+|[^\w\s.,;:!?'\"()\[\]{}*`-]")
_ARTICLES = ("a", "an", "the")


@dataclass(frozen=True)
class Found:
    """Option number `index` (from 0), in characters `start` to `end` of the text, in `tokens` tokens."""

    index: int
    start: int
    end: int
    tokens: int


class OptionTexts:
    """The texts of one question's options. Letter case counts where options differ in nothing else (`Ww`, `ww`)."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._exact = [_tokens(plain(text)) for text in texts]
        folded = [_fold(tokens) for tokens in self._exact]
        self._case_counts = len(set(map(tuple, folded))) < len(set(map(tuple, self._exact)))
        self._options = self._exact if self._case_counts else folded
        # Each text's tokens, and those after its article → the options that have them.
        self._owners: dict[tuple[str, ...], set[int]] = {}
        for index, option in enumerate(self._options):
            for tokens in (option, _without_article(option)):
                if tokens:
                    self._owners.setdefault(tuple(tokens), set()).add(index)
        self._longest = max(map(len, self._options))

    def leading(self, text: str, start: int = 0) -> Found | None:
        """The longest option that `text` has at `start`, an article before it or not; None where two are the same text."""
        tokens, spans = self._split(text, start, self._longest + 1)
        bare = len(_without_article(tokens)) < len(tokens)
        for size in range(min(len(tokens), self._longest), 0, -1):
            for first in range(min(bare, len(tokens) - size) + 1):
                if owners := self._owners.get(tuple(tokens[first : first + size])):
                    index = next(iter(owners))
                    return Found(index, spans[first][0], spans[first + size - 1][1], size) if len(owners) == 1 else None
        return None

    def within(self, text: str) -> list[Found]:
        """Every option in `text` but those that lie inside a longer one, from left to right."""
        tokens, spans = self._split(text, 0)
        found: list[Found] = []
        for index, option in enumerate(self._options):
            size = len(option)
            for at in range(len(tokens) - size + 1) if size else ():
                if tokens[at : at + size] == option:
                    found.append(Found(index, spans[at][0], spans[at + size - 1][1], size))
        found.sort(key=lambda one: (one.start, -one.tokens))
        return [
            one
            for one in found
            if not any(
                other.start <= one.start and one.end <= other.end and other.tokens > one.tokens for other in found
            )
        ]

    def holds_token(self, token: str) -> bool:
        """Whether some option's text has `token` as a word of its own."""
        return any(token in option for option in self._exact)

    def _split(self, text: str, start: int, most: int | None = None) -> tuple[list[str], list[tuple[int, int]]]:
        matches = list(islice(_TOKEN.finditer(text, start), most))
        tokens = [match[0].replace(",", "") for match in matches]
        return (tokens if self._case_counts else _fold(tokens)), [match.span() for match in matches]


def _tokens(text: str) -> list[str]:
    return [match[0].replace(",", "") for match in _TOKEN.finditer(text)]


def _fold(tokens: list[str]) -> list[str]:
    return [token.casefold() for token in tokens]


def _without_article(tokens: list[str]) -> list[str]:
    return tokens[1:] if tokens and tokens[0].lower() in _ARTICLES else tokens
