"""Ctrl-C and SIGTERM: the first stops the run cleanly, the second ends everything at once."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from orpo_ray.errors import OrpoRayError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(OrpoRayError):
    """The run was stopped by a signal; its record says so, and the same command goes on."""

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class StopSignals:
    """A context in which the first SIGINT or SIGTERM raises KeyboardInterrupt in the main thread.

    Libraries put handlers of their own in place (Ray Train for SIGINT while it trains: it aborts the worker group and
    raises SystemExit), so signals are counted below the handlers, by the interpreter's wake-up descriptor. A second one
    calls `kill_hard`, from a thread, whatever the main thread hangs in.

    Outside the main thread, where Python takes no handlers, the context does nothing.

    Attributes:
        first: the number of the first signal; None while there was none.
    """

    def __init__(self, kill_hard: Callable[[int], None] | None = None) -> None:
        self._kill_hard = kill_hard or kill_descendants_and_exit
        self._former: dict[signal.Signals, object] = {}
        self._raised = False
        self.first: int | None = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._former_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._former = {number: signal.signal(number, self._stop) for number in _SIGNALS}
            threading.Thread(target=self._count, name="stop-signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._former:
            return
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._former_descriptor)
        self._writer.close()

    def rearm(self) -> None:
        """Take the handlers back from a library that has put its own in their place."""
        if self._former:
            for number in _SIGNALS:
                signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        # The second is the counting thread's; raising here again would only cut the clean-up short.
        if not self._raised:
            self._raised = True
            self.first = self.first or number
            raise KeyboardInterrupt

    def _count(self) -> None:
        seen = 0
        with self._reader:
            while numbers := self._reader.recv(64):
                for number in numbers:
                    if number in _SIGNALS:
                        seen += 1
                        self.first = self.first or number
                        if seen == 2:
                            self._kill_hard(number)


def kill_descendants_and_exit(number: int) -> None:
    """End all processes below this one, and this one, without a word to any of them."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(128 + number)
