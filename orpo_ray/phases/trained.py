"""A phase that only a run which trains has work for: with `train.objective: none` it is passed over."""

from typing import Any

from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.phase import Phase

SKIPPED: dict[str, Any] = {"skipped": "train.objective is none"}


class WhereTrained(Phase):
    """`phase`, or nothing at all."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase

    @property
    def name(self) -> str:
        return self._phase.name

    def key(self, context: RunContext) -> str:
        return self._phase.key(context) if context.config.trains else fingerprint(SKIPPED)

    def pairs_key(self, context: RunContext) -> str:
        return self._phase.pairs_key(context) if context.config.trains else fingerprint(SKIPPED)

    def run(self, context: RunContext) -> dict[str, Any]:
        return self._phase.run(context) if context.config.trains else dict(SKIPPED)

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        return self._phase.still_there(context, result) if context.config.trains else True
