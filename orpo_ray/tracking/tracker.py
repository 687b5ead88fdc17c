"""What a tracker is to a run: numbers with a name at an optimizer step. It may fail, and the run goes on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Warn = Callable[[str], None]


class Tracker(Protocol):
    """One place that numbers go to. Opened by the function beside it; every method may raise what it likes."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Note `values` at optimizer step `step`, from 0."""

    def close(self) -> None:
        """Nothing more comes; what was noted is to be kept."""


Open = Callable[[], Tracker]


class Trackers:
    """Several trackers as one. One that fails is told of once, and then left alone.

    Args:
        opens: by name what opens each; called when the first numbers come.
        warn: is told in one sentence.
    """

    def __init__(self, opens: Mapping[str, Open], warn: Warn) -> None:
        self._opens, self._warn = dict(opens), warn
        self._open: dict[str, Tracker] = {}

    @property
    def working(self) -> Sequence[str]:
        """Names of those that have not failed."""
        return [*self._opens, *self._open]

    def log(self, values: Mapping[str, float], step: int) -> None:
        """As `Tracker.log`, to each that works. Never raises."""
        for name in list(self._opens):
            opened = self._opens.pop(name)
            try:
                self._open[name] = opened()
            except Exception as error:
                self._fails(name, error)
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(values, step)
            except Exception as error:
                del self._open[name]
                self._fails(name, error)

    def close(self) -> None:
        """Close each that is open. Never raises."""
        while self._open:
            name, tracker = self._open.popitem()
            try:
                tracker.close()
            except Exception as error:
                self._fails(name, error)

    def _fails(self, name: str, error: Exception) -> None:
        said = (str(error).strip() or "no message").splitlines()[0]
        self._warn(f"tracking.{name}: failed ({type(error).__name__}: {said}); the run goes on without it")
