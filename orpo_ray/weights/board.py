"""The weight board: the one actor that samplers, trainers and the evaluator share. Thin: gate and shelf hold the logic.

Samplers ask it before they work (`admit`), rank 0 tells it of each new version (`publish`), the evaluator takes from it
what is to be evaluated (`next_evaluation`). It holds counters and paths, never rows, so its memory does not grow.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_ray.errors import SamplerLostError, StaleAttemptError, WaitTimeout
from orpo_ray.weights.gate import StalenessGate
from orpo_ray.weights.shelf import Shelf, Version

EVALUATOR = "evaluator"
# A sampler says that it lives every 2 s.
_LIVES_S = 10.0


@dataclass(frozen=True)
class AttemptStart:
    """Where the current start of the worker group begins.

    Attributes:
        number: counts starts, from 1, over all starts of the driver.
        step: optimizer steps that its checkpoint holds.
        checkpoint: the checkpoint's directory; None at the very beginning.
    """

    number: int
    step: int
    checkpoint: str | None


def answered(call: Any, limit_s: float) -> Any:
    """What the board answers to `call`, a reference to a call of its; Ray may be starting it again.

    Raises:
        WaitTimeout: it did not within `limit_s`, which is `limits.start_s`.
    """
    import ray
    from ray.exceptions import GetTimeoutError

    try:
        return ray.get(call, timeout=limit_s)
    except GetTimeoutError:
        raise WaitTimeout(f"limits.start_s: the weight board did not answer within {limit_s:g} s") from None


class WeightBoard:
    """An async actor; see the module's docstring."""

    def __init__(self, initial: Version, gate: StalenessGate) -> None:
        self._gate = gate
        self._initial = initial
        self._shelf = Shelf(initial, lasting=frozenset([EVALUATOR]))
        self._start: AttemptStart | None = None
        self._changed = asyncio.Condition()
        self._lives: dict[str, str] = {}
        self._dead: set[str] = set()
        self._to_evaluate: deque[Version] = deque()
        self._finished = False
        self._waiting: dict[object, tuple[str, int, float]] = {}
        self._heard = ("nothing", time.monotonic())
        self._alive: dict[str, float] = {}
        self._sampled = time.monotonic()
        self._ending: str | None = None

    async def start_attempt(self, start: AttemptStart, current: Version, older: list[Version]) -> None:
        """A worker group starts: what is newer than its checkpoint is forgotten, older callers are refused.

        Every end of an epoch that is still on the storage is handed to the evaluator once more: it finds what it has
        done, and an epoch whose evaluation was cut off, here or in an earlier start of the driver, is made up for.
        """
        async with self._changed:
            self._shelf.start_attempt(start.number, current, older)
            self._start = start
            self._lives, self._dead, self._alive = {}, set(), {}
            self._sampled, self._ending = time.monotonic(), None
            self._hear(f"attempt {start.number} began at step {start.step}")
            ends = [version for version in (self._initial, *older, current) if version.epoch is not None]
            self._to_evaluate = deque(dict.fromkeys(ends))
            self._hold_for_evaluator(self._shelf.held_by(EVALUATOR))
            self._changed.notify_all()

    async def attempt(self) -> AttemptStart:
        """The current start, for the workers and samplers that belong to it."""
        if self._start is None:
            raise StaleAttemptError("no attempt has begun")
        return self._start

    async def admit(self, attempt: int, reader: str, last_row: int, timeout_s: float) -> Version:
        """Wait until rows up to `last_row` may be sampled; the version to sample with, held for `reader`.

        Raises:
            StaleAttemptError: a newer attempt has begun, or `reader` is dead.
            WaitTimeout: the trainer published nothing for `timeout_s` seconds that opens the gate.
        """
        ticket, since = object(), time.monotonic()
        self._waiting[ticket] = (reader, last_row, since)
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while True:
                    self._shelf.check(attempt)
                    if reader in self._dead:
                        raise StaleAttemptError(f"{reader} is dead and waits at the gate no more")
                    newest = self._shelf.newest
                    if self._gate.admits(last_row, newest.number):
                        self._sampled = time.monotonic()
                        self._shelf.hold(reader, newest.path)
                        return newest
                    await self._changed.wait()
        except TimeoutError:
            newest = self._shelf.newest
            raise WaitTimeout(
                f"limits.gate_s: sampler {reader} waited {timeout_s:g} s at the gate with row {last_row}; version "
                f"{newest.number} (step {newest.step}) admits rows below {self._gate.limit(newest.number)}, and the "
                f"trainer has published no newer one. {self._situation()}"
            ) from None
        finally:
            del self._waiting[ticket]

    async def situation(self) -> str:
        """What each actor is at, as far as the board has heard of it."""
        return self._situation()

    def _situation(self) -> str:
        now = time.monotonic()
        what, when = self._heard
        waiting = [f"{reader} with row {row} for {now - since:.0f} s" for reader, row, since in self._waiting.values()]
        reading: dict[str, list[str]] = {}
        for reader, path in self._shelf.holds():
            reading.setdefault(reader, []).append(Path(path).name)
        evaluator = [f"version {version.number}" for version in self._to_evaluate]
        parts = {
            "trainer, last heard of": f"{what} {now - when:.0f} s ago",
            "samplers, last heard of": ", ".join(
                f"{reader} {now - self._alive[reader]:.0f} s ago"
                for reader in self._lives.values()
                if reader in self._alive
            ),
            "at the gate": ", ".join(waiting),
            "sampling": ", ".join(
                f"{reader} with {' and '.join(names)}" for reader, names in reading.items() if reader != EVALUATOR
            ),
            "to be evaluated": ", ".join(evaluator),
        }
        return "; ".join(f"{name}: {text or 'nobody'}" for name, text in parts.items())

    async def release(self, reader: str, path: str) -> None:
        """`reader` has done with the version in directory `path`."""
        self._sampled = time.monotonic()
        self._shelf.release(reader, path)

    async def enter(self, actor: str, reader: str) -> None:
        """`reader` is the life that `actor` begins: what its former life held ends, and what that one asked for.

        Ray restarts a killed actor under its old id, while the calls of the killed process go on waiting here: one that
        the gate let in later would hold a version for nobody.
        """
        async with self._changed:
            former = self._lives.get(actor)
            self._lives[actor] = reader
            self._alive[reader] = time.monotonic()
            if former is not None:
                self._dead.add(former)
                self._shelf.drop_reader(former)
                self._changed.notify_all()

    async def alive(self, reader: str) -> None:
        """`reader` lives: it says so now and then, whatever it is at."""
        self._alive[reader] = time.monotonic()

    async def samplers(self, attempt: int) -> int:
        """How many samplers of `attempt` live, each at its place."""
        self._shelf.check(attempt)
        now = time.monotonic()
        return sum(now - self._alive.get(reader, now) < _LIVES_S for reader in self._lives.values())

    async def check_rows(self, attempt: int, place_s: float, still_s: float) -> None:
        """Whether rows may still come for a trainer that waits for them.

        Args:
            place_s: how long a sampler may be gone; its blocks are its own, so nobody else brings them.
            still_s: how long no sampler need have begun or ended a block.

        Raises:
            StaleAttemptError: a newer attempt has begun.
            SamplerLostError: a sampler has been gone for longer.
            WaitTimeout: no sampler did anything for longer.
        """
        self._shelf.check(attempt)
        now = time.monotonic()
        silent = {actor: now - self._alive.get(reader, self._sampled) for actor, reader in self._lives.items()}
        lost = [f"{actor} for {seconds:.0f} s" for actor, seconds in silent.items() if seconds > place_s]
        if lost:
            raise SamplerLostError(
                f"limits.place_s: nothing has been heard of {', '.join(lost)}, longer than {place_s:g} s, and rows are "
                f"missing that nobody else brings. {self._situation()}"
            )
        if now - self._sampled > still_s:
            raise WaitTimeout(
                f"limits.start_s, reload_s and generate_s: the train workers wait for rows, and no sampler has begun or "
                f"ended a block for {now - self._sampled:.0f} s, longer than {still_s:g} s. {self._situation()}"
            )

    async def end_attempt(self, attempt: int, why: str) -> None:
        """Ask the worker group to end at its next checkpoint, since a larger one has a place."""
        if attempt == self._shelf.attempt:
            self._ending = why

    async def ending(self, attempt: int) -> str | None:
        """Why the worker group is asked to end; None while it is not."""
        self._shelf.check(attempt)
        return self._ending

    async def publish(self, attempt: int, version: Version) -> list[str]:
        """A new version is on the storage. Returns directories that nobody reads any more, for the caller to delete."""
        async with self._changed:
            self._shelf.publish(attempt, version)
            self._hear(f"version {version.number} at step {version.step}")
            if version.epoch is not None:
                self._to_evaluate.append(version)
                self._shelf.hold(EVALUATOR, version.path)
            self._changed.notify_all()
            return [gone.path for gone in self._shelf.take_removable()]

    async def next_evaluation(self) -> Version | None:
        """Wait for the next version to evaluate; None once training is finished and nothing is left.

        It stays the next one until `evaluated` is called with it, so that one which dies over it is given it again.
        """
        async with self._changed:
            while not self._to_evaluate:
                if self._finished:
                    return None
                await self._changed.wait()
            return self._to_evaluate[0]

    async def evaluated(self, version: Version, keep: Sequence[str]) -> None:
        """`version` is done with. Of all that was, only the directories `keep` are needed on.

        Nothing happens to a version of a dead timeline, whose place in the queue is gone already.
        """
        self._to_evaluate = deque(waiting for waiting in self._to_evaluate if waiting.path != version.path)
        self._hold_for_evaluator(self._shelf.held_by(EVALUATOR) & set(keep))

    def _hold_for_evaluator(self, kept: Set[str]) -> None:
        """The evaluator holds what waits for it, and what it keeps."""
        self._shelf.hold_only(EVALUATOR, kept | {version.path for version in self._to_evaluate})

    async def pin(self, attempt: int, numbers: set[int]) -> None:
        """Versions that kept checkpoints would resume with."""
        self._shelf.check(attempt)
        self._hear("a checkpoint")
        self._shelf.pin(numbers)

    async def finish(self) -> None:
        """Training is over: the evaluator may stop once its queue is empty."""
        async with self._changed:
            self._finished = True
            self._changed.notify_all()

    def _hear(self, what: str) -> None:
        self._heard = (what, time.monotonic())

    async def newest(self) -> Version:
        return self._shelf.newest
