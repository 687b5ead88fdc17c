"""How long Ray Data's executor waits between two looks at what its tasks have made.

Its loop waits until *all* running tasks have something, 0.1 s at most, and only then takes up what is there. Blocks that
stand at the gate have nothing, so each round lasts its 0.1 s, and a sampled block waits two or three of them on its way to
the rank. At staleness 0 and 1 that is time in which nobody works.
"""

from typing import Any

from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.execution.execution_callback import ExecutionCallback

WAIT_S = 0.02
"""Ray's is 0.1."""


class ShorterWait(ExecutionCallback):
    """Sets the wait in the process whose executor it belongs to: under Ray Train, the split coordinator's own."""

    def before_execution_starts(self, executor: Any) -> None:
        streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = WAIT_S
