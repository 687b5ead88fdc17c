"""events.jsonl: what happened, one JSON object a line; and everyone who listens to it."""

import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

Listener = Callable[[str, dict[str, Any]], None]
Clock = Callable[[], float]


class EventLog:
    """The `say` of a run: callable as `say("teach.progress", done=120, total=600)`, from any thread.

    Args:
        file: events.jsonl, appended to.
        listeners: called with kind and fields after the line is written, one call at a time.
        clock: seconds since the epoch.
        run: the run's name; it and the phase at work stand in every line.
    """

    def __init__(self, file: Path, listeners: Sequence[Listener], clock: Clock, run: str) -> None:
        self._file, self._listeners, self._clock, self._run = file, listeners, clock, run
        self.phase: str | None = None
        # Re-entrant: a signal may strike while the main thread is saying something, and be said itself.
        self._one_at_a_time = threading.RLock()
        self._opened: TextIO | None = None

    def __enter__(self) -> "EventLog":
        self._opened = self._file.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._one_at_a_time:
            if self._opened is not None:
                self._opened.close()
            self._opened = None

    def __call__(self, kind: str, **fields: Any) -> None:
        line = {"time": timestamp(self._clock()), "run": self._run, "phase": self.phase, "kind": kind, **fields}
        with self._one_at_a_time:
            if self._opened is None:
                return
            self._opened.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            self._opened.flush()
            for listener in self._listeners:
                listener(kind, fields)


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
