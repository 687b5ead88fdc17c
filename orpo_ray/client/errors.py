"""Errors of the client, one class per cause."""

from orpo_ray.errors import InputError, OrpoRayError


class ClusterUnreachableError(OrpoRayError):
    """Nobody answers at the cluster's address, or not in time, or somebody who is no Ray dashboard."""

    exit_code = 2


class NotAuthorisedError(OrpoRayError):
    """The cluster wants a token: none was sent, or another one than its own."""

    exit_code = 2


class ClusterError(OrpoRayError):
    """The cluster was reached and failed at what it was asked; says what it said."""


class UnknownRunError(InputError):
    """The cluster knows no run of this name or id."""


class RefusedError(InputError):
    """The run was refused, by the client or on the cluster: its configuration, models or data are at fault."""


class RunFailedError(OrpoRayError):
    """The run failed.

    Attributes:
        run: its id.
        phase: where it failed, as `DISTILL`; None where that is not known.
        reason: what the run said last.
    """

    def __init__(self, run: str, phase: str | None, reason: str) -> None:
        super().__init__(f"{run} failed{f' in {phase}' if phase else ''}: {reason}")
        self.run, self.phase, self.reason = run, phase, reason

    def __reduce__(self) -> tuple[object, ...]:
        return (RunFailedError, (self.run, self.phase, self.reason))


class RunNotFinishedError(OrpoRayError):
    """A result was asked of a run that has none: it still works, or was stopped."""
