"""Kills on fake engines: the rows of the plan are trained once each, in its order, with the undisturbed run's losses."""

from pathlib import Path

import pytest

from tests.chaos.harness import Outcome, epochs_for, planned_kills, run_under
from tests.chaos.verdict import largest_difference
from tests.chaos.victims import DRIVER, KINDS
from tests.tiny.models import make_model

FEW = tuple(kind for kind in KINDS if kind != DRIVER)


def check(outcome: Outcome, kills: int) -> None:
    print(outcome.table())
    assert len(outcome.deaths) == kills
    assert outcome.verdict.clean, outcome.verdict
    assert outcome.evaluated == list(range(outcome.epochs + 1))


@pytest.mark.timeout(900)
def test_each_kind_of_kill_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Each kind once; the driver's is in tests/integration/test_distill.py, with real engines and equal losses."""
    student = make_model(tmp_path / "student")
    outcome = run_under(planned_kills(len(FEW), 1, FEW), tmp_path / "killed", student, epochs_for(len(FEW)))
    assert {death.kind for death in outcome.deaths} == set(FEW)
    check(outcome, len(FEW))
    # A dead sampler, engine or evaluator is made up for within the attempt.
    mended = [note for note in outcome.notes if note.endswith("starts from the last checkpoint")]
    resumed = [note for note in outcome.notes if note.startswith("going on from step ")]
    assert len(mended) == len(resumed) == len({"train worker", "weight board", "split coordinator", "train controller"})


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thirty_two_kills_lose_and_repeat_nothing_and_train_the_same(tmp_path: Path) -> None:
    """Every kind four times; the losses are those of the undisturbed run (DESIGN promise 11)."""
    kills = 4 * len(KINDS)
    student, epochs = make_model(tmp_path / "student"), epochs_for(kills)
    undisturbed = run_under([], tmp_path / "undisturbed", student, epochs)
    check(undisturbed, 0)
    outcome = run_under(planned_kills(kills, 2), tmp_path / "killed", student, epochs)
    check(outcome, kills)
    assert largest_difference(outcome.metrics, undisturbed.metrics) <= 1e-6
