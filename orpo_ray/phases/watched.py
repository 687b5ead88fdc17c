"""Rows of an execution of Ray Data, which works in a process of its own, so that one that stands still can be ended."""

from collections.abc import Iterator
from typing import Any

import ray
from ray.data import Dataset

from orpo_ray.errors import SamplerLostError


def rows_within(dataset: Dataset, limit_s: float, limits: str) -> Iterator[dict[str, Any]]:
    """Rows of `dataset` as they come.

    Args:
        limits: the options that give `limit_s`, for the message.

    Raises:
        SamplerLostError: none came for `limit_s` seconds, as where a block waits for an actor that finds no place.
    """
    stream: Any = ray.remote(num_cpus=0, max_retries=0)(_rows).options(num_returns="streaming").remote(dataset)
    count = 0
    try:
        while True:
            ready, _ = ray.wait([stream], timeout=limit_s)
            if not ready:
                raise SamplerLostError(
                    f"{limits}: the samplers have finished no block for {limit_s:g} s, after {count} of them; one is gone, "
                    "or hangs"
                )
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
