"""The statistics of blocks that went by are dropped; what is left is the last of them."""

import inspect
from types import SimpleNamespace
from typing import Any

from ray.data._internal.execution.operators.map_operator import MapOperator
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from orpo_ray.sampling.block_stats import KEPT, ForgetBlockStats


def executor(*operators: Any) -> Any:
    return SimpleNamespace(_topology=dict.fromkeys(operators))


class Operator:
    def __init__(self, blocks: int) -> None:
        self._output_blocks_stats = list(range(blocks))


def test_the_last_blocks_of_each_operator_are_kept() -> None:
    long, short = Operator(1000), Operator(KEPT)
    ForgetBlockStats().on_execution_step(executor(long, short))
    assert long._output_blocks_stats == list(range(1000 - KEPT, 1000))
    assert short._output_blocks_stats == list(range(KEPT))


def test_however_many_blocks_go_by_few_are_remembered() -> None:
    operator, callback = Operator(0), ForgetBlockStats()
    for block in range(10_000):
        operator._output_blocks_stats.append(block)
        callback.on_execution_step(executor(operator))
        assert len(operator._output_blocks_stats) <= 2 * KEPT
    assert operator._output_blocks_stats[-1] == 9_999


def test_an_operator_that_remembers_nothing_is_left_alone() -> None:
    operator = type("Plain", (), {})()
    ForgetBlockStats().on_execution_step(executor(operator))
    assert vars(operator) == {}


def test_ray_still_keeps_them_under_this_name() -> None:
    """They are Ray's own, so a new Ray may name them otherwise, and grow again without a word."""
    assert "self._output_blocks_stats.extend(" in inspect.getsource(MapOperator._get_next_inner)
    assert "self._topology" in inspect.getsource(StreamingExecutor)
