"""From an exception to one message on stderr and an exit code. Bad input never ends in a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from orpo_ray.errors import OrpoRayError

DEBUG = "ORPO_RAY_DEBUG"


@contextmanager
def exit_with_one_message() -> Iterator[None]:
    """Ends the process with `message` and the error's exit code where the body raises: 2 bad input, 130 Ctrl-C.

    With ORPO_RAY_DEBUG=1 in the environment the traceback is printed as well.
    """
    try:
        yield
    except KeyboardInterrupt:
        _end("stopped", 130)
    except Exception as error:
        ours = _our_error(error)
        if os.environ.get(DEBUG):
            raise
        if ours is not None:
            _end("\n".join([str(ours), *getattr(ours, "__notes__", [])]), ours.exit_code)
        text = str(error).strip() or "without a message"
        _end(f"{type(error).__name__}: {text}\nThis should not have happened; {DEBUG}=1 shows where it did.", 1)


def _our_error(error: Exception) -> OrpoRayError | None:
    """What Ray wrapped, if it is ours."""
    if isinstance(error, OrpoRayError) and not hasattr(error, "cause"):
        return error
    from orpo_ray.phases.retry import our_error

    return our_error(error)


def _end(message: str, exit_code: int) -> None:
    print(f"orpo-ray: {message}", file=sys.stderr)
    sys.exit(exit_code)
