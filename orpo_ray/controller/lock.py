"""One process works on a run at a time.

The lock is the kernel's (`flock`): it ends with the process that holds it, however that dies, so a stale one needs no
clean-up. The file's content only says who holds it, for the message.
"""

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

from orpo_ray.errors import InputError

# Somebody who only looks whether the lock is held has it for an instant.
_PATIENCE_S = 1.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}, since {self.since}"


class RunLock:
    """A context that holds the lock in `file`; makes the run's directory where it is missing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened: TextIO | None = None

    def __enter__(self) -> "RunLock":
        """Raises InputError where the storage cannot be written, or another process works on the run."""
        self._opened = _open(self._file)
        if not _flock(self._opened, fcntl.LOCK_EX, _PATIENCE_S):
            holder = _read(self._opened)
            self._opened.close()
            who = str(holder) if holder else "unknown"
            raise InputError(
                f"{self._file.parent}: another process works on this run ({who}); wait for it or end it, "
                "or give this one a name of its own with --set name=…"
            )
        self._write(Holder(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._opened is not None
        self._opened.truncate(0)
        self._opened.close()

    def _write(self, holder: Holder) -> None:
        assert self._opened is not None
        self._opened.seek(0)
        self._opened.truncate(0)
        self._opened.write(json.dumps(asdict(holder)))
        self._opened.flush()


def lock_holder(file: Path) -> Holder | None:
    """Who works on the run whose lock is `file`; None where nobody does."""
    try:
        opened = file.open(encoding="utf-8")
    except OSError:
        return None
    with opened:
        return None if _flock(opened, fcntl.LOCK_SH, 0) else _read(opened)


def _open(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"storage.path: {file.parent} cannot be written ({error.strerror}); "
            "give a directory that this user may write to"
        ) from None


def _flock(opened: TextIO, kind: int, patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(opened, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)


def _read(opened: TextIO) -> Holder | None:
    opened.seek(0)
    try:
        return Holder(**json.loads(opened.read()))
    except (ValueError, TypeError):
        return None
