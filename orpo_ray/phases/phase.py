"""What the controller asks of a phase."""

from typing import Any, Protocol

from orpo_ray.phases.context import RunContext


class Phase(Protocol):
    """One state of a run: a piece of work with a key, whose result is found again while the key stays the same."""

    @property
    def name(self) -> str:
        """As in run.json: PREPARE, TEACH, SEED, DISTILL, EVALUATE or EXPORT."""

    def key(self, context: RunContext) -> str:
        """Fingerprint of all that the result depends on: options, files, and the results of earlier phases."""

    def pairs_key(self, context: RunContext) -> str:
        """The part of `key` that the pairs and the training depend on; it may not change once DISTILL has begun."""
        return self.key(context)

    def run(self, context: RunContext) -> dict[str, Any]:
        """Do the work, going on from what an earlier start left, and return plain JSON data.

        Where it is interrupted (KeyboardInterrupt, SystemExit) it stops what it started and lets the exception through.
        """

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """Whether the files that `result` speaks of still exist."""
