"""Gives numbers to Ray's metrics, from any process of a run: `record("orpo_sampler_tokens_total", 120)`.

Whose run it is stands in the environment of every worker (`phases.cluster`), so that nobody has to be told. A metric that
cannot be given ends nothing. Where Ray does not run, as in most tests, nothing happens.

Ray forgets a gauge that is not set again within two of its report intervals (20 s), and one that was set before its agent
was up. So a gauge's last value is given again, every few seconds, for as long as its process lives.
"""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from orpo_ray.tracking.quantities import QUANTITIES, SECONDS, Quantity

RUN_VARIABLE = "ORPO_RAY_RUN"

AGAIN_S = 5.0
"""Time after which gauges are given again: below Ray's report interval of 10 s."""

log = logging.getLogger(__name__)

_gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
_gauges_lock = threading.Lock()


def record(name: str, value: float = 1.0, **tags: str) -> None:
    """Set a gauge, add to a counter, or observe in a histogram, as the table says that `name` is.

    Args:
        tags: `phase`, where it is not the table's own, and those that the quantity has.
    """
    quantity = QUANTITIES[name]
    if not _ray_runs() or not math.isfinite(value):
        return
    named = {"run": os.environ.get(RUN_VARIABLE, ""), "phase": quantity.phase, **tags}
    try:
        _give(quantity, float(value), named)
    except Exception as error:
        _tell_once(name, f"{type(error).__name__}: {error}")


def record_step(line: Mapping[str, Any]) -> None:
    """Give all that the table takes from a line of metrics.jsonl."""
    for quantity in QUANTITIES.values():
        value = line.get(quantity.line) if quantity.line is not None else None
        if isinstance(value, Mapping):
            (tag,) = quantity.tags
            for key, inner in value.items():
                record(quantity.name, inner, **{tag: str(key)})
        elif isinstance(value, int | float):
            record(quantity.name, value)
    record("orpo_train_steps_total")


@contextmanager
def timed(name: str, **tags: str) -> Iterator[None]:
    """Observe the seconds that the context is open, also where it ends in an error."""
    began = time.monotonic()
    try:
        yield
    finally:
        record(name, time.monotonic() - began, **tags)


def _give(quantity: Quantity, value: float, tags: dict[str, str]) -> None:
    metric = _metric(quantity.name)
    match quantity.kind:
        case "gauge":
            with _gauges_lock:
                _gauges[quantity.name, tuple(tags.items())] = value
                metric.set(value, tags=tags)
            _keep_giving()
        case "counter":
            if value > 0:  # Ray refuses to add nothing
                metric.inc(value, tags=tags)
        case "histogram":
            metric.observe(value, tags=tags)


def give_again() -> None:
    """Set every gauge of this process to its last value."""
    with _gauges_lock:
        for (name, tags), value in _gauges.items():
            if _ray_runs():
                _metric(name).set(value, tags=dict(tags))


@cache
def _keep_giving() -> None:
    threading.Thread(target=_give_again_for_ever, name="gauges", daemon=True).start()


def _give_again_for_ever() -> None:
    while True:
        time.sleep(AGAIN_S)
        try:
            give_again()
        except Exception as error:
            _tell_once("(gauges)", f"{type(error).__name__}: {error}")


@cache
def _metric(name: str) -> Any:
    from ray.util.metrics import Counter, Gauge, Histogram

    quantity = QUANTITIES[name]
    keys = ("run", "phase", *quantity.tags)
    if quantity.kind == "histogram":
        return Histogram(name, quantity.description, boundaries=list(SECONDS), tag_keys=keys)
    return (Gauge if quantity.kind == "gauge" else Counter)(name, quantity.description, tag_keys=keys)


@cache
def _tell_once(name: str, what: str) -> None:
    log.warning("metric %s is not given to Ray: %s", name, what)


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and hasattr(ray, "is_initialized") and bool(ray.is_initialized())
