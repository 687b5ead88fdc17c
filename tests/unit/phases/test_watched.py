"""Rows that are waited for within a limit, from a thread."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from orpo_ray.errors import VerifierError, WaitTimeout
from orpo_ray.phases.watched import last_rows_within


def fake(rows: Iterator[dict[str, Any]]) -> Any:
    """A data set, as far as it is asked for its rows."""
    return SimpleNamespace(iter_rows=lambda: rows)


def silence(count: int) -> WaitTimeout:
    return WaitTimeout(f"after {count}")


def test_rows_come_in_order_to_their_end() -> None:
    assert list(last_rows_within(fake(iter([{"a": 1}, {"a": 2}])), 10, silence)) == [{"a": 1}, {"a": 2}]


def test_silence_is_told_with_what_had_come() -> None:
    again = threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        yield {}
        again.wait(10)

    with pytest.raises(WaitTimeout, match=r"^after 1$"):
        list(last_rows_within(fake(rows()), 0.1, silence))
    again.set()


def test_an_error_comes_behind_the_rows_before_it() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {}
        raise VerifierError("row 7")

    found = last_rows_within(fake(rows()), 10, silence)
    assert next(found) == {}
    with pytest.raises(VerifierError, match=r"^row 7$"):
        next(found)


def test_an_execution_that_is_left_is_closed_at_its_next_row() -> None:
    more, closed = threading.Event(), threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        try:
            yield {}
            more.wait(10)
            yield {}
            yield {}
        finally:
            closed.set()

    found: Any = last_rows_within(fake(rows()), 10, silence)
    next(found)
    found.close()
    more.set()
    assert closed.wait(10)
