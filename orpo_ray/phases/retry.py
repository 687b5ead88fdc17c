"""Which faults are worth another attempt, and which would only happen again."""

import re
import traceback
from dataclasses import dataclass

from orpo_ray.errors import CollectiveTimeout, OrpoRayError, SamplerLostError, StaleAttemptError
from orpo_ray.weights.published import IncompleteVersionError

# Where an exception keeps the one behind it: Python's own two, RayTaskError's, and ControllerError's of Ray Train.
_WRAPS = ("__cause__", "__context__", "cause", "controller_failure")

# Errors of ours that another attempt does away with: a call that came late, a version that was spoilt, a sampler without
# a place, a rank that hung.
_PASSING = (StaleAttemptError, IncompleteVersionError, SamplerLostError, CollectiveTimeout)

_RAYS_ADVICE = "Failed to apply UDF transform after"


@dataclass(frozen=True)
class RetryDecision:
    """What to do about a fault.

    Attributes:
        reason: one line for the person who watches.
        error: what to raise where there is no retry.
    """

    retry: bool
    reason: str
    error: OrpoRayError


def decide(
    error: Exception,
    failures: int,
    limit: int,
    *,
    what: str = "the worker group",
    then: str = "attempt {} starts from the last checkpoint",
) -> RetryDecision:
    """Retry a fault of the cluster up to `limit` times; an error of our own (bad input, a broken verifier) never.

    Args:
        failures: faults of this run so far, this one included.
        what: what failed, for the message; `then` says what the next try does, with its number.
    """
    ours = our_error(error)
    if ours is not None and not isinstance(ours, _PASSING):
        return RetryDecision(False, str(ours), ours)
    last = last_line(ours or error)
    if failures > limit:
        text = f"{what} failed {failures} times (limits.failures is {limit}); the last time: {last}"
        return RetryDecision(False, text, OrpoRayError(text))
    text = f"{what} failed ({last}); {then.format(failures + 1)}"
    return RetryDecision(True, text, OrpoRayError(text))


def our_error(error: BaseException) -> OrpoRayError | None:
    """The error of ours that a Ray exception wraps, however deep; None where the cause is another."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, OrpoRayError):
            return _plain(current)
        failures = getattr(current, "worker_failures", None)
        if isinstance(failures, dict):
            waiting += failures.values()
        waiting += [getattr(current, name, None) for name in _WRAPS]
    return None


def _plain(error: OrpoRayError) -> OrpoRayError:
    """Ray raises a class that is both RayTaskError and ours; its text is the remote traceback, the cause's our own."""
    cause = getattr(error, "cause", None)
    plain = cause if isinstance(cause, OrpoRayError) else error
    # Ray Data adds advice of its own about retries, which an error of ours never wants.
    if len(plain.args) == 1 and isinstance(plain.args[0], str):
        plain.args = (plain.args[0].split(_RAYS_ADVICE)[0].rstrip(),)
    return plain


def last_line(error: BaseException) -> str:
    """What an exception comes to: Ray's tell the cause last. A line without a word says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"\w", line)]
    return lines[-1] if lines else type(error).__name__


def whole(error: BaseException, limit: int = 20_000) -> str:
    """The traceback of `error` and of those behind it, for the run's events; its last `limit` characters.

    Ray Train's error tells of each rank's in 1,000 characters; they are added whole.
    """
    failures = getattr(error, "worker_failures", None)
    behind = [
        f"rank {rank}: {''.join(traceback.format_exception(failure))}"
        for rank, failure in (failures.items() if isinstance(failures, dict) else ())
    ]
    return "\n".join([*behind, "".join(traceback.format_exception(error))])[-limit:]
