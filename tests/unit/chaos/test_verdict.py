"""The judge of the chaos tests: it must find what is wrong with a ledger."""

from typing import Any

import pytest

from orpo_ray.config import Geometry
from orpo_ray.pairs import Plan
from tests.chaos.harness import epochs_for, planned_kills
from tests.chaos.run import STEPS_AN_EPOCH
from tests.chaos.verdict import judge_ledger, largest_difference
from tests.chaos.victims import KINDS

PLAN = Plan(0, (0.5, 0.5), Geometry(8, 2, 2, prompts=20, epochs=2, refresh_steps=None), str)


def ledger() -> list[dict[str, Any]]:
    rows = [PLAN.row(index) for index in range(48)]
    return [
        {"row": row.index, "step": row.index // 8 + 1, "epoch": row.epoch, "prompt_id": row.prompt_id,
         "policy": row.policy if row.real else "padding"}
        for row in rows
    ]  # fmt: skip


def test_a_whole_ledger_is_clean() -> None:
    verdict = judge_ledger(ledger()[::-1], PLAN)
    assert verdict.clean
    assert (verdict.lost, verdict.repeated, verdict.misplaced) == ([], [], [])


def test_lost_and_repeated_rows_are_named() -> None:
    lines = ledger()
    verdict = judge_ledger([*lines[:5], *lines[6:], lines[7]], PLAN)
    assert (verdict.lost, verdict.repeated, verdict.misplaced) == ([5], [7], [])
    assert not verdict.clean


@pytest.mark.parametrize(
    ("name", "value"), [("step", 6), ("epoch", 2), ("prompt_id", "elsewhere"), ("policy", "padding")]
)
def test_a_row_that_is_not_the_plans_is_named(name: str, value: Any) -> None:
    lines = ledger()
    lines[3] = lines[3] | {name: value}
    assert judge_ledger(lines, PLAN).misplaced == [3]


def test_a_row_past_the_plans_end_is_named() -> None:
    assert judge_ledger([*ledger(), ledger()[0] | {"row": 48}], PLAN).misplaced == [48]


def test_losses_are_compared_step_by_step() -> None:
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    assert largest_difference(lines, lines) == 0.0
    assert largest_difference([lines[0], lines[1] | {"loss": 1.25}], lines) == 0.25
    assert largest_difference(lines[:1], lines) == float("inf")


def test_kills_are_seeded_and_every_kind_has_its_turn() -> None:
    kills = planned_kills(3 * len(KINDS), seed=5)
    assert kills == planned_kills(3 * len(KINDS), seed=5)
    assert kills != planned_kills(3 * len(KINDS), seed=6)
    for turn in range(3):
        assert {kill.kind for kill in kills[turn * len(KINDS) : (turn + 1) * len(KINDS)]} == set(KINDS)
    assert sum(kill.after for kill in kills) < epochs_for(len(kills)) * STEPS_AN_EPOCH
