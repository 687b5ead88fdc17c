"""Says how training goes: follows metrics.jsonl, which rank 0 writes, from the driver."""

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orpo_ray.config import Geometry
from orpo_ray.phases.context import RunContext

_POLL_S = 0.5


def read_metrics(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file; one that is still being written is left out."""
    if not file.exists():
        return
    with file.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


class MetricsTail:
    """A context in which new optimizer steps are said as `distill.progress`."""

    def __init__(self, context: RunContext, geometry: Geometry) -> None:
        self._context, self._geometry = context, geometry
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._offset = 0

    def __enter__(self) -> "MetricsTail":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._say_newest()

    def _follow(self) -> None:
        while not self._ended.wait(_POLL_S):
            self._say_newest()

    def _say_newest(self) -> None:
        """Say the last line that was written since the last look."""
        file = self._context.layout.metrics
        size = file.stat().st_size if file.exists() else 0
        if size < self._offset:  # a new attempt dropped lines of the dead timeline
            self._offset = size
        if size == self._offset:
            return
        with file.open() as opened:
            opened.seek(self._offset)
            lines = [line for line in opened.read().splitlines(keepends=True) if line.endswith("\n")]
        self._offset += sum(len(line.encode()) for line in lines)
        if lines:
            self._say(json.loads(lines[-1]))

    def _say(self, line: dict[str, Any]) -> None:
        self._context.say(
            "distill.progress",
            step=line["step"],
            steps=self._geometry.steps,
            epoch=line["epoch"],
            loss=line.get("loss", math.nan),
            margin=line.get("margin"),
            pairs_per_s=line["pairs_per_s"],
            staleness=line["staleness_mean"],
            version=line["version"],
        )
