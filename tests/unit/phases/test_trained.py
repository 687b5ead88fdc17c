"""With `train.objective: none` there is nothing to teach, sample, train or export; the initial student is evaluated."""

from pathlib import Path
from typing import Any

import pytest

from orpo_ray.phases import all_phases
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.trained import WhereTrained
from tests.tiny.runs import context_of, tiny_config


class Counting:
    """A phase that counts its calls."""

    name = "TEACH"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def key(self, context: RunContext) -> str:
        self.calls.append("key")
        return "its own"

    def run(self, context: RunContext) -> dict[str, Any]:
        self.calls.append("run")
        return {"did": "it"}

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        self.calls.append("still_there")
        return False


@pytest.mark.parametrize("objective", ["orpo", "sft", "none"])
def test_a_phase_is_passed_over_where_nothing_is_trained(tmp_path: Path, objective: str) -> None:
    context = context_of(tiny_config(tmp_path, Path("student"), train={"objective": objective}))
    phase = Counting()
    wrapped = WhereTrained(phase)
    found = (wrapped.name, wrapped.key(context), wrapped.run(context), wrapped.still_there(context, {}))
    if objective == "none":
        assert found[0] == "TEACH"
        assert found[2:] == ({"skipped": "train.objective is none"}, True)
        assert phase.calls == []
    else:
        assert found == ("TEACH", "its own", {"did": "it"}, False)
        assert phase.calls == ["key", "run", "still_there"]


def test_only_the_checks_and_the_evaluation_are_left() -> None:
    assert [phase.name for phase in all_phases() if not isinstance(phase, WhereTrained)] == ["PREPARE", "EVALUATE"]
