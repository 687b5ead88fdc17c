"""The executor's wait is Ray's own, by a name that a new Ray may not have."""

import inspect

import pytest
from ray.data._internal.execution import streaming_executor_state

from orpo_ray.sampling.executor_wait import WAIT_S, ShorterWait


def test_the_executor_waits_less_once_an_execution_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S"
    monkeypatch.setattr(streaming_executor_state, name, streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S)
    assert WAIT_S < streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S
    ShorterWait().before_execution_starts(None)
    assert streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S == WAIT_S


def test_ray_still_waits_for_its_tasks_by_this_name() -> None:
    assert "timeout=WAIT_FOR_TASK_COMPLETION_TIMEOUT_S" in inspect.getsource(
        streaming_executor_state.process_completed_tasks
    )
