"""Chooses the final answer among all that a completion states."""

from typing import Protocol

from orpo_ray.tasks.answers.statements import Kind, Statement, contrasts, new_question, sentence, statements
from orpo_ray.tasks.answers.surface import plain


class Reader(Protocol):
    """Knows what an answer of one sort looks like. Each method gives None where it sees none, or more than one."""

    def whole(self, body: str) -> str | None:
        """The answer that all of `body` is."""

    def leading(self, body: str, *, closed: bool = False) -> str | None:
        """The answer that `body` begins with. `closed`: only if its clause ends with it."""

    def within(self, clause: str) -> str | None:
        """The answer that is somewhere in `clause`."""

    def trailing(self, clause: str) -> str | None:
        """The answer that `clause`, the subject of "is the correct answer", names."""

    def unstated(self, text: str) -> str | None:
        """The answer of a text that states none in so many words: a bare `B`, a last line `6 * 7 = 42`."""


def final_answer(text: str, reader: Reader) -> str | None:
    """The last answer that `text` states; None where it states none.

    A later statement replaces an earlier one, a denial ("the answer is not A") takes that answer back, and suppositions
    ("if the answer is A") count for nothing; what follows a further question of the model's own is not read. An answer told in a whole sentence counts where none is stated outright, and
    the text's close where that is missing too.
    """
    text = plain(text)
    stated: str | None = None
    told: str | None = None
    stated_at = 0
    for statement in statements(text):
        if stated is not None and new_question(text, stated_at, statement.position):
            break
        answer = _read(statement, reader)
        if statement.denied or statement.doubted:
            if statement.denied and answer is not None:
                stated = None if stated == answer else stated
                told = None if told == answer else told
            if statement.kind in (Kind.SAYS, Kind.LEADS):
                opposed = (reader.leading(body) for body in contrasts(statement.body))
                stated = next((found for found in opposed if found is not None), stated)
        elif answer is not None:
            # "Wait, 5 apples" in mid-reasoning corrects no answer.
            if statement.kind is not Kind.CORRECTION or stated is not None:
                stated, stated_at = answer, statement.position
        elif statement.kind is Kind.SAYS:
            told = reader.within(sentence(statement.body)) or told
    return stated or told or reader.unstated(text)


def _read(statement: Statement, reader: Reader) -> str | None:
    match statement.kind:
        case Kind.FRAMED:
            return reader.whole(statement.body)
        case Kind.CORRECTION:
            return reader.leading(statement.body, closed=True)
        case Kind.CLAUSE:
            return reader.trailing(statement.body)
        case Kind.LEADS | Kind.SAYS:
            return reader.leading(statement.body)
