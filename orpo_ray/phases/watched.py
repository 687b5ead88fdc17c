"""Rows of an execution of Ray Data, waited for within a limit."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.data import Dataset


def rows_within(dataset: Dataset, limit_s: float, silence: Callable[[int], Exception]) -> Iterator[dict[str, Any]]:
    """Rows of `dataset` as they come, from a process of its own, so that an execution which stands still can be ended.

    Args:
        silence: the error to raise, of how many rows had come, where none came for `limit_s` seconds, as where a block
            waits for an actor that finds no place.
    """
    execution: Any = ray.remote(num_cpus=0, max_restarts=0)(_Execution).remote()
    stream = execution.rows.options(num_returns="streaming", max_task_retries=0).remote(dataset)
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
    except BaseException:  # GeneratorExit too
        # The samplers, which it owns, end with it.
        ray.kill(execution)
        raise


class _Execution:
    """An actor, and no task: Ray aborts the whole driver where `ray.cancel(task, force=True)` meets the task's own end."""

    def rows(self, dataset: Dataset) -> Iterator[dict[str, Any]]:
        yield from dataset.iter_rows()


def last_rows_within(dataset: Dataset, limit_s: float, silence: Callable[[int], Exception]) -> Iterator[dict[str, Any]]:
    """As `rows_within`, from a thread, which takes no time to start: where silence ends the run, and the execution with it."""
    over, rows = threading.Event(), queue.Queue[tuple[dict[str, Any] | None, Exception | None]]()

    def pass_on() -> None:
        try:
            for row in dataset.iter_rows():
                if over.is_set():
                    return
                rows.put((row, None))
            rows.put((None, None))
        except Exception as error:
            rows.put((None, error))

    threading.Thread(target=pass_on, name="rows", daemon=True).start()
    count = 0
    try:
        while True:
            try:
                row, error = rows.get(timeout=limit_s)
            except queue.Empty:
                raise silence(count) from None
            if error is not None:
                raise error
            if row is None:
                return
            count += 1
            yield row
    finally:
        over.set()
