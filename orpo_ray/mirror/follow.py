"""A run's mirror over one start of it: taken, brought down where this machine lacks the run, followed beside it, made whole.

What is sent goes from the driver, in a thread of its own; neither training nor progress waits for it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from orpo_ray.config import RunConfig
from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import InputError, OrpoRayError
from orpo_ray.mirror.claim import Claim, TakenOverError
from orpo_ray.mirror.contents import newest_checkpoint
from orpo_ray.mirror.fetching import Fetcher, set_aside
from orpo_ray.mirror.index import Index, Note, read_index, read_note
from orpo_ray.mirror.place import Place, first_line, open_place, tried
from orpo_ray.mirror.pool import backoff, pause
from orpo_ray.mirror.sending import Sender

Say = Callable[..., None]

STORE = "traces.store"
"""Kind of the event by which a phase says where the traces lie that it makes."""
_PARTING_S = 30.0
_LOOK_S = 0.5


class MirrorError(OrpoRayError):
    """The mirror is not whole, or the run could not be brought down from it."""


class _CalledOffError(Exception):
    """The follower is to stop."""


class Mirroring(Protocol):
    """What a start of a run asks of its mirror, in this order."""

    def check(self) -> None:
        """Raises InputError where the mirror cannot be used."""

    def opened(self) -> Any:
        """A context in which the mirror is this driver's; gives sentences on what was brought down. Under the run's lock."""

    def listen(self, kind: str, fields: Mapping[str, Any]) -> None:
        """A listener of the run's events."""

    def following(self, say: Say) -> Any:
        """A context in which what comes into the run's files goes to the mirror."""

    def settle(self) -> None:
        """Make the mirror whole, at the run's end.

        Raises:
            MirrorError: it could not be within `limits.upload_s`.
        """


class NoMirror:
    """Of a run without one."""

    def check(self) -> None: ...

    @contextmanager
    def opened(self) -> Iterator[list[str]]:
        yield []

    def listen(self, kind: str, fields: Mapping[str, Any]) -> None: ...

    @contextmanager
    def following(self, say: Say) -> Iterator[None]:
        yield

    def settle(self) -> None: ...


class Mirror:
    """The mirror at `storage.mirror`; see `Mirroring`.

    Args:
        url: of the prefix below which runs are mirrored, each under its name.
        every_s: seconds between two passes.
        limit_s: seconds for which nothing may get through before it is said, or, at the end, is an error.
        place: the files below `url`; opened from it where None.
    """

    def __init__(self, url: str, layout: RunLayout, every_s: float, limit_s: float, place: Place | None = None) -> None:
        self._url, self._layout, self._every_s, self._limit_s = url, layout, every_s, limit_s
        self._given = place
        self._stores: set[Path] = set()
        self._ended = threading.Event()
        self._heard_at = time.monotonic()
        self._over: TakenOverError | None = None

    def check(self) -> None:
        """As `Mirroring.check`: writes, reads and removes a small file there."""
        prefix = self._given or open_place(self._url)
        prefix.check()
        self._place = prefix.below(self._layout.name)

    @contextmanager
    def opened(self) -> Iterator[list[str]]:
        """As `Mirroring.opened`.

        Raises:
            InputError: another driver writes there, or what lies there is not this run's.
            MirrorError: the run could not be brought down.
        """
        self._claim = Claim(self._place, self._layout.run)
        tried(self._place.url, self._claim.take)
        try:
            index = tried(self._place.url, lambda: read_index(self._place))
            said = self._agree(index, read_note(self._layout.mirrored))
            index, note = index or Index.first(self._layout.storage), read_note(self._layout.mirrored)
            self._sender = Sender(self._place, self._layout, self._claim, index, note, self._heard)
            yield said
        finally:
            with suppress(OSError, TakenOverError):
                self._claim.release()

    def listen(self, kind: str, fields: Mapping[str, Any]) -> None:
        """As `Mirroring.listen`."""
        if kind == STORE:
            self._stores.add(Path(fields["path"]))

    @contextmanager
    def following(self, say: Say) -> Iterator[None]:
        """As `Mirroring.following`. Where the body raises, what can be sent in half a minute still is."""
        self._say = say
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()
        try:
            yield
        except (MirrorError, TakenOverError):
            raise
        except BaseException:
            self._part()
            raise
        finally:
            self._ended.set()

    def settle(self) -> None:
        """As `Mirroring.settle`."""
        self._stop()
        began, failures = time.monotonic(), 0
        while True:
            try:
                self._sender.send(frozenset(self._stores), self._beat)
                return
            except TakenOverError:
                raise
            except Exception as error:  # pyarrow and fsspec have errors of their own beside OSError
                failures += 1
                waited = time.monotonic() - max(began, self._heard_at)
                if waited > self._limit_s:
                    raise self._not_whole(f"nothing got through for {waited:.0f} s: {first_line(error)}") from error
                pause(backoff(failures), self._beat)

    def _agree(self, index: Index | None, note: Note) -> list[str]:
        """Let this machine have the newer of the two; sentences on what that took."""
        layout, url = self._layout, self._place.url
        if index is None:
            return []
        if not layout.state.is_file():
            return [f"storage.mirror: brought down from {url}, as of write {index.number}", *self._bring_down(index)]
        if note.line != index.line:
            raise InputError(
                f"storage.mirror: {url} holds a run {layout.name} that does not come from {layout.run}, nor that from it; give "
                "this one another name with --set name=…, give another storage.mirror, or move one of the two away"
            )
        if index.commit in note.commits or index.number < note.number:
            return []
        aside = set_aside(layout)
        return [
            f"storage.mirror: {url} went on elsewhere (write {index.number}; this machine knew write {note.number}), so it is "
            f"the run; brought down, and what was here is now in {aside}",
            *self._bring_down(index),
        ]

    def _bring_down(self, index: Index) -> list[str]:
        fetcher = Fetcher(self._place, self._layout, index, self._heard)
        fetcher.check_room()
        began, failures = time.monotonic(), 0
        while True:
            try:
                return fetcher.fetch(self._beat)
            except OrpoRayError:
                raise
            except Exception as error:
                failures += 1
                waited = time.monotonic() - max(began, self._heard_at)
                if waited > self._limit_s:
                    raise MirrorError(
                        f"storage.mirror: the run could not be brought down from {self._place.url}: nothing came for "
                        f"{waited:.0f} s (limits.upload_s): {first_line(error)}\nThe same command goes on with it"
                    ) from error
                pause(backoff(failures), self._beat)

    def _follow(self) -> None:
        """Pass after pass, until the run's end."""
        failures, trouble, told, newest = 0, 0.0, False, newest_checkpoint(self._sender.index.files)
        while True:
            try:
                began = time.monotonic()
                sent = self._sender.send(frozenset(self._stores), self._look)
                if told:
                    self._say("mirror.caught_up", seconds=round(time.monotonic() - trouble, 1))
                failures, told, wait = 0, False, self._every_s
                if (now := newest_checkpoint(self._sender.index.files)) != newest:
                    newest, seconds = now, round(time.monotonic() - began, 2)
                    self._say("mirror.sent", checkpoint=now, files=sent.files, bytes=sent.bytes, seconds=seconds)
            except _CalledOffError:
                return
            except TakenOverError as error:
                self._over = error
                self._say("note", text=f"{error}; training goes on, and this start ends with an error")
                return
            except Exception as error:
                trouble = trouble if failures else time.monotonic()
                failures += 1
                wait = backoff(failures)
                waited = time.monotonic() - max(trouble, self._heard_at)
                if waited > self._limit_s and not told:
                    told = True
                    self._say(
                        "mirror.behind",
                        waits_for=self._sender.waits_for,
                        seconds=round(waited, 1),
                        error=first_line(error),
                    )
            try:
                pause(wait, self._look)
            except (_CalledOffError, TakenOverError):
                continue

    def _stop(self) -> None:
        """End the following; raises where it ended by itself, or does not end."""
        self._ended.set()
        began = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(_LOOK_S)
            if time.monotonic() - max(began, self._heard_at) > self._limit_s and self._thread.is_alive():
                raise self._not_whole(f"nothing got through for {self._limit_s:g} s")
        if self._over is not None:
            raise self._over

    def _not_whole(self, why: str) -> MirrorError:
        return MirrorError(
            f"storage.mirror: {self._place.url} is not whole: {self._sender.waits_for} did not get there (limits.upload_s): {why}\n"
            f"The run is done, and whole at {self._layout.run}; the same command sends the rest"
        )

    def _part(self) -> None:
        """One more pass for a run that ended early: another machine may be the next to go on with it."""
        end = time.monotonic() + _PARTING_S

        def look() -> None:
            if time.monotonic() > end:
                raise TimeoutError(f"not done within {_PARTING_S:g} s")

        self._ended.set()
        self._thread.join(_PARTING_S)
        try:
            if not self._thread.is_alive():
                self._sender.send(frozenset(self._stores), look)
        except Exception as error:
            self._say("note", text=f"storage.mirror: {self._place.url} lacks the last part ({first_line(error)})")

    def _look(self) -> None:
        if self._ended.is_set():
            raise _CalledOffError
        self._beat()

    def _beat(self) -> None:
        with suppress(OSError):  # what is sent meets the same, and says so
            self._claim.beat()

    def _heard(self) -> None:
        self._heard_at = time.monotonic()


def mirror_of(config: RunConfig, layout: RunLayout) -> Mirroring:
    """The mirror that the configuration asks for."""
    storage = config.storage
    if storage.mirror is None:
        return NoMirror()
    return Mirror(storage.mirror, layout, storage.mirror_every_s, config.limits.upload_s)
