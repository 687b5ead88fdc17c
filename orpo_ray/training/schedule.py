"""The learning rate over a run, as a share of its peak: a function of the step, so that nothing has to be resumed."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]


def lr_scale(step: int, total_steps: int, warmup_steps: int, schedule: Schedule) -> float:
    """Share of the peak rate at optimizer step `step`: a line up to 1, then a decay to 0 just after the last step.

    Unlike the schedules of transformers the first step already has a rate above 0: no step is spent on nothing.

    Args:
        step: counted from 0.
        total_steps: of the whole run, warm-up included.
        warmup_steps: over which the rate rises.
        schedule: the decay after the warm-up; `constant` has none.

    Returns:
        In (0, 1] up to the last step, then 0 (`constant`: 1).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 1.0 - progress if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
