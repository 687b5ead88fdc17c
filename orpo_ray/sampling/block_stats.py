"""Keeps Ray Data from remembering every block that went by, in the split coordinator, for a summary at the end.

Ray's operators append a BlockStats for each block that they hand on, some kilobyte, and drop none while an execution runs.
A run is one execution of as many blocks as its epochs have: at a million prompts in blocks of 16 that would be hundreds of
megabytes.
"""

from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

KEPT = 64
"""Blocks of each operator that Ray's own summary still sees."""


class ForgetBlockStats(ExecutionCallback):
    """Drops the statistics of all but the last `KEPT` blocks of each operator."""

    def on_execution_step(self, executor: Any) -> None:
        for operator in executor._topology or ():
            stats = getattr(operator, "_output_blocks_stats", None)
            # Seldom, and many at a time: the loop comes by here often.
            if stats is not None and len(stats) > 2 * KEPT:
                del stats[:-KEPT]
