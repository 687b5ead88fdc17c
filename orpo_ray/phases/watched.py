"""Rows of an execution of Ray Data, which works in a process of its own, so that one that stands still can be ended."""

from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.data import Dataset


def rows_within(dataset: Dataset, limit_s: float, silence: Callable[[int], Exception]) -> Iterator[dict[str, Any]]:
    """Rows of `dataset` as they come.

    Args:
        silence: the error to raise, of how many rows had come, where none came for `limit_s` seconds, as where a block
            waits for an actor that finds no place.
    """
    stream: Any = ray.remote(num_cpus=0, max_retries=0)(_rows).options(num_returns="streaming").remote(dataset)
    count = 0
    try:
        while True:
            ready, _ = ray.wait([stream], timeout=limit_s)
            if not ready:
                raise silence(count)
            try:
                row: dict[str, Any] = ray.get(next(stream))
            except StopIteration:
                return
            count += 1
            yield row
    finally:
        # Its actors end with it.
        ray.cancel(stream, force=True)


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    yield from dataset.iter_rows()
