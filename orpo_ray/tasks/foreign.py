"""A user's own task class, brought into the package's terms."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from orpo_ray.errors import DataError, OrpoRayError, VerifierError
from orpo_ray.tasks.splits import NO_OTHERS, OtherSplits, SplitSize, part_of
from orpo_ray.tasks.task import Message, Row, Task, Verdict

_REQUIRED = ("rows", "prompt", "extract", "verify", "gold")


class ForeignTask(Task):
    """Wraps any object with `rows()`, `prompt(row)`, `extract(text)`, `verify(row, text)` and `gold(row)`.

    Whatever it raises in judging becomes a VerifierError that names the row. Where its class takes no `sizes` of its own,
    its rows are cut by `split_rows`, without the questions of `others`; where it does, those are left out afterwards, so
    that there may be fewer rows than were asked for.

    It travels to Ray actors without the object, which is made again there when it is needed: the rows that it may hold
    are many, and actors get theirs as blocks.

    Args:
        make: makes the object; it travels by pickle.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        name: str,
        split: str,
        sizes: Mapping[str, SplitSize] | None,
        seed: int,
        others: OtherSplits = NO_OTHERS,
    ) -> None:
        task = make()
        missing = [method for method in _REQUIRED if not callable(getattr(task, method, None))]
        if missing:
            raise DataError(f"task {name!r}: its class lacks {', '.join(f'{method}()' for method in missing)}")
        self.name, self.split = name, split
        self._make, self._made = make, task
        self._sizes, self._seed, self._others = sizes, seed, others
        self._rows: list[Row] | None = None
        self._extract_takes_row = "row" in inspect.signature(task.extract).parameters

    @property
    def _task(self) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None, "_rows": None}

    def rows(self) -> list[Row]:
        if self._rows is None:
            self._rows, self.left_out = self._cut()
        return self._rows

    def _cut(self) -> tuple[list[Row], int]:
        rows = list(self._task.rows())
        for index, row in enumerate(rows):
            if not isinstance(row, Row):
                raise DataError(f"task {self.name!r}: rows() gave a {type(row).__name__} at {index}, not a Row")
        if len({row.id for row in rows}) < len(rows):
            raise DataError(f"task {self.name!r}: rows() gave two rows of the same id; ids must be unique")
        if not rows:
            raise DataError(f"task {self.name!r}: rows() gave no row")
        return part_of(rows, self.split, self._sizes, self._seed, self._others)

    def prompt(self, row: Row) -> str:
        return str(self._task.prompt(row))

    def messages(self, row: Row) -> list[Message]:
        own = getattr(self._task, "messages", None)
        return list(own(row)) if callable(own) else super().messages(row)

    def extract(self, text: str, row: Row | None = None) -> str | None:
        answer = self._task.extract(text, row=row) if self._extract_takes_row else self._task.extract(text)
        return None if answer is None else str(answer)

    def gold(self, row: Row) -> str:
        return str(self._task.gold(row))

    def solution(self, row: Row) -> str | None:
        own = getattr(self._task, "solution", None)
        return own(row) if callable(own) else None

    def classify(self, row: Row, text: str) -> Verdict:
        try:
            if self._task.verify(row, text):
                return Verdict.RIGHT
            return Verdict.UNPARSED if self.extract(text, row) is None else Verdict.WRONG
        except VerifierError:
            raise
        except OrpoRayError as error:
            raise VerifierError(f"task {self.name}, row {row.id}: {error}") from error
        except Exception as error:
            raise VerifierError(f"task {self.name}, row {row.id}: {type(error).__name__}: {error}") from error
