"""The processes that a test session has started."""

from contextlib import suppress

import psutil


def session_processes(name: str) -> list[psutil.Process]:
    """Those whose command line has `name` in it, as Ray calls an actor's by its class."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if name in (" ".join(process.cmdline()) or process.name()):
                found.append(process)
    return found
