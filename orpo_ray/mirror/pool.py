"""A few transfers at a time, while the driver's claim is kept up and somebody may call them off."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

AT_A_TIME = 4
_LOOK_S = 0.2

Look = Callable[[], None]


def transfer(calls: Iterable[Callable[[], Any]], look: Look) -> None:
    """Make all calls, AT_A_TIME at once and without a queue of more.

    Args:
        look: called again and again meanwhile; what it raises calls off what has not begun.

    Raises:
        The first error of a call, once those that have begun are over.
    """
    waiting = iter(calls)
    running: set[Future[Any]] = set()
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="mirror") as pool:
        while True:
            while len(running) < AT_A_TIME and (call := next(waiting, None)) is not None:
                running.add(pool.submit(call))
            if not running:
                return
            done, running = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            look()


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures on end: 1, 2, 4 … 30."""
    return float(min(30, 2 ** min(failures - 1, 5)))


def pause(seconds: float, look: Look) -> None:
    """Sleep, and look meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(_LOOK_S, left))
        look()
