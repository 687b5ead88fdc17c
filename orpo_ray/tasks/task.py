"""What a task is to the rest of the package: rows, a prompt for each, and a verdict on a completion."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypedDict

from orpo_ray.errors import OrpoRayError, VerifierError


@dataclass(frozen=True)
class Row:
    """One example. `id` is unique within its split and the same each time the data is read; `data` is as in the file."""

    id: str
    split: str
    data: Mapping[str, Any] = field(hash=False)


class Message(TypedDict):
    """One chat message, as chat templates and the OpenAI API take it."""

    role: str
    content: str


class Verdict(StrEnum):
    """What a completion is worth. `UNPARSED` states no final answer; it is its own class, not a wrong answer."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSED = "unparsed"


class Task(ABC):
    """A data set with verifiable answers, in one split.

    A subclass says what its rows are, how a row is asked, how an answer is read and what the gold answer is. Instances
    travel to Ray actors by pickle.
    """

    name: str
    split: str
    left_out: int = 0
    """Rows that `rows` left out, because another split holds the same question; known once `rows` was called."""

    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """All rows of the split, in the data's order. Raises DataError, naming file and line, where the data is at fault."""

    @abstractmethod
    def prompt(self, row: Row) -> str:
        """The user message: the question, and the request to reason first and answer last."""

    @abstractmethod
    def extract(self, text: str, row: Row | None = None) -> str | None:
        """The final answer that a completion states; None where it states none.

        `row` lets an answer be given as an option's text, in tasks with options.
        """

    @abstractmethod
    def gold(self, row: Row) -> str:
        """The right answer: a number as the data writes it, the option's label, or `yes` or `no`."""

    def judge(self, row: Row, answer: str) -> Verdict:
        """The verdict on an extracted answer."""
        return Verdict.RIGHT if answer == self.gold(row) else Verdict.WRONG

    def messages(self, row: Row) -> list[Message]:
        """The prompt as chat messages."""
        return [{"role": "user", "content": self.prompt(row)}]

    def solution(self, row: Row) -> str | None:
        """A worked solution that the data itself holds, as a completion; None where it holds none."""
        return None

    def classify(self, row: Row, text: str) -> Verdict:
        """Extracts and judges. Raises VerifierError, naming the row, where either breaks: never a silent `WRONG`."""
        try:
            answer = self.extract(text, row)
            return Verdict.UNPARSED if answer is None else self.judge(row, answer)
        except OrpoRayError as error:
            raise VerifierError(f"task {self.name}, row {row.id}: {error}") from error
        except Exception as error:
            raise VerifierError(f"task {self.name}, row {row.id}: {type(error).__name__}: {error}") from error

    def classify_all(self, answers: Sequence[tuple[Row, str]]) -> list[Verdict]:
        """`classify` for each; a task whose verifier waits for another machine does several at a time."""
        return [self.classify(row, text) for row, text in answers]

    def verify(self, row: Row, text: str) -> bool:
        """Whether the completion's final answer is right. Raises VerifierError as `classify` does."""
        return self.classify(row, text) is Verdict.RIGHT
