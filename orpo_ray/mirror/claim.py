"""One driver writes to a mirror at a time.

The run's lock keeps drivers of one storage apart. Two machines with a disk each have no lock in common, so a driver also says in
the mirror that it is there, and says it again while it is. Nobody's clock is compared: who finds such a word watches whether it
changes.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orpo_ray.errors import InputError, OrpoRayError
from orpo_ray.mirror.place import Place

DRIVER = "driver.json"
BEAT_S = 10.0
"""Between two signs of life."""
WATCH_S = 3 * BEAT_S
"""A driver that gives none for so long is taken for dead."""
_LOOK_S = 1.0


class TakenOverError(OrpoRayError):
    """Another driver writes to the mirror now: it took this one for dead."""


@dataclass(frozen=True)
class Driver:
    """Who writes to a mirror.

    Attributes:
        token: its own, of one start.
        storage: the run's directory on that host.
        beat: how often it has given a sign of life.
    """

    token: str
    pid: int
    host: str
    storage: str
    since: str
    beat: int = 0

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}, since {self.since}"


class Claim:
    """This driver's hold on a mirror."""

    def __init__(self, place: Place, run: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._place, self._clock = place, clock
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._own = Driver(uuid.uuid4().hex, os.getpid(), socket.gethostname(), str(run), since)
        self._said: float | None = None

    def take(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the mirror, from a dead driver too. The caller holds the run's lock.

        Raises:
            InputError: another driver lives.
            OSError: the store does not answer.
        """
        other = self._there()
        # The lock of the same directory would still be held.
        if other is not None and (other.host, other.storage) != (self._own.host, self._own.storage):
            self._watch(other, sleep)
        self._say()

    def beat(self) -> None:
        """Give a sign of life, where it is time for one.

        Raises:
            TakenOverError: another driver writes here.
            OSError: the store does not answer.
        """
        if self._said is None or self._clock() - self._said >= BEAT_S:
            self.check()
            self._own = replace(self._own, beat=self._own.beat + 1)
            self._say()

    def check(self) -> None:
        """Raises TakenOverError where the mirror is not this driver's any more."""
        other = self._there()
        if other is None or other.token != self._own.token:
            who = f"another driver ({other})" if other is not None else "another driver, which has ended"
            raise TakenOverError(
                f"storage.mirror: {self._place.url} was taken over by {who}; it goes on from what it found there"
            )

    def release(self) -> None:
        """Give the mirror back."""
        self.check()
        self._place.remove(DRIVER)

    def _watch(self, other: Driver, sleep: Callable[[float], None]) -> None:
        end = self._clock() + WATCH_S
        while self._clock() < end:
            sleep(_LOOK_S)
            now = self._there()
            if now is None:
                return
            if now != other:
                raise InputError(
                    f"storage.mirror: {self._place.url}: another process works on this run ({now}); wait for it or end it, "
                    "or give this one a name of its own with --set name=…"
                )

    def _there(self) -> Driver | None:
        content = self._place.read(DRIVER)
        try:
            return Driver(**json.loads(content)) if content is not None else None
        except (TypeError, ValueError):
            return None

    def _say(self) -> None:
        self._place.replace(DRIVER, json.dumps(asdict(self._own)).encode())
        self._said = self._clock()
