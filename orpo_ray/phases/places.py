"""Which train workers and samplers find a place on the cluster now.

Ray itself is asked, by placement groups that are given back at once: it alone knows what other runs hold and how a share
of a GPU is left over, and an autoscaler brings nodes for them.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.errors import WaitTimeout
from orpo_ray.phases.fit import Demand, asked, demands_of
from orpo_ray.phases.needs import AUTOSCALED, groups_by_phase

# Which of the demands have a place beside each other, the first ones first, once all have or so many seconds are over.
Ask = Callable[[Sequence[Demand], float], list[bool]]

# What is there is given out within seconds; so long is asked again for less, and for more.
SETTLE_S = 10.0
_LOOK_S = 0.25


@dataclass(frozen=True)
class Places:
    """How many train workers and samplers an attempt has."""

    workers: int
    samplers: int

    def all_of(self, config: RunConfig) -> bool:
        """Whether none is missing."""
        return self == Places(config.train.workers, config.resources.samplers)


def find_places(
    config: RunConfig, ask: Ask, phase: str = "DISTILL", clock: Callable[[], float] = time.monotonic
) -> Places:
    """Places for all workers and samplers of `phase`, or, past `limits.place_s`, for the most that there are places for.

    Workers come before samplers, and a data task, without which the stream stands still, between them.

    Raises:
        WaitTimeout: within `limits.start_s` there was no place even for the fewest.
    """
    limits, began = config.limits, clock()
    sizes = config.world_sizes if phase == "DISTILL" else [config.train.workers]
    fewest, most = config.resources.samplers_min, config.resources.samplers
    patience = min(limits.start_s, limits.start_s if os.environ.get(AUTOSCALED) else limits.place_s)
    while True:
        for workers in sizes:
            demands, samplers = _demands(config.sized(workers, most), phase)
            placed = ask([*demands, *samplers], patience)
            found = sum(placed[len(demands) :])
            if all(placed[: len(demands)]) and found >= fewest:
                return Places(workers, found)
            patience = SETTLE_S
        if clock() - began >= limits.start_s:
            raise WaitTimeout(_nowhere(config.sized(sizes[-1], fewest), phase))


def more_places(config: RunConfig, places: Places, ask: Ask) -> bool:
    """Whether a missing worker or sampler of DISTILL has a place now, beside those that there are."""
    if places.all_of(config):
        return False
    larger = [size for size in config.world_sizes if size > places.workers]
    workers, missing = (min(larger) - places.workers if larger else 0), config.resources.samplers - places.samplers
    # None of a kind cannot be asked for, so one is, and left out.
    demands, samplers = _demands(config.sized(max(workers, 1), max(missing, 1)), "DISTILL")
    data = demands[-1:]
    if workers and all(ask(demands, SETTLE_S)):
        return True
    return missing > 0 and all(ask([*data, samplers[0]], SETTLE_S))


def ask_ray(demands: Sequence[Demand], seconds: float) -> list[bool]:
    """See `Ask`: of the cluster that this process is connected to."""
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    with ExitStack() as given_back:
        groups: list[Any] = []
        for demand in demands:
            bundles = [_resources(bundle.cpus, bundle.gpus) for bundle in demand.bundles]
            if not all(bundles):  # what asks for nothing is not placed by what is left
                groups.append(None)
                continue
            labels = [dict(demand.labels)] * len(bundles) if demand.labels else None
            group = placement_group(bundles, strategy=demand.strategy, bundle_label_selector=labels)
            given_back.callback(remove_placement_group, group)
            groups.append(group)
        end = time.monotonic() + seconds
        while True:
            placed = [group is None or placement_group_table(group)["state"] == "CREATED" for group in groups]
            if all(placed) or time.monotonic() >= end:
                return placed
            time.sleep(_LOOK_S)


def _demands(config: RunConfig, phase: str) -> tuple[list[Demand], list[Demand]]:
    """What must have a place, the data task last; and the samplers, one each."""
    groups = groups_by_phase(config)[phase]
    workers = [demand for group in groups if group.role == "trainer" for demand in demands_of(config, group)]
    data = [demand for group in groups if group.role is None for demand in demands_of(config, group)]
    samplers = [demand for group in groups if group.role == "sampler" for demand in demands_of(config, group)]
    return [*workers, *data], samplers


def _resources(cpus: float, gpus: float) -> dict[str, float]:
    return {kind: amount for kind, amount in (("CPU", cpus), ("GPU", gpus)) if amount}


def _nowhere(config: RunConfig, phase: str) -> str:
    """What found no place, and what it asks for."""
    demands, samplers = _demands(config, phase)
    # Of memory Ray knows nothing.
    parts = [
        f"{demand.name} ({len(demand.bundles)} × {asked(replace(demand.bundles[0], memory=0))}"
        + (f" on nodes with {dict(demand.labels)})" if demand.labels else ")")
        for demand in [*demands, *samplers]
    ]
    return (
        f"limits.start_s: no place within {config.limits.start_s:g} s for {', '.join(parts)} beside what the cluster "
        "does already; free or add nodes, or lower train.workers_min or what `resources` asks"
    )
