"""What every phase is given: the configuration, the run's paths, and a place to say what happens."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.config.layout import RunLayout

# Called as say("teach.progress", done=120, total=600, …): a dotted kind and plain numbers or short texts.
Say = Callable[..., None]


@dataclass(frozen=True)
class RunContext:
    """One run, as its phases see it.

    `results` holds what earlier phases returned, by phase name: plain JSON data, as kept in run.json. `live` holds
    handles of actors that outlive their phase, as the evaluator; a phase that finds none starts its own.
    """

    config: RunConfig
    layout: RunLayout
    say: Say
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    live: dict[str, Any] = field(default_factory=dict)
