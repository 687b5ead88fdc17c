"""Objectives that take one part of ORPO's contrast away."""

import math

import pytest
import torch

from orpo_ray.training.ablations import LogRatio, NothingPushedDown
from orpo_ray.training.objective import Objective, Orpo, PairScores, load_objective


def scores(chosen: list[float], rejected: list[float], has: list[bool]) -> PairScores:
    chosen_logp = torch.tensor(chosen, requires_grad=True)
    return PairScores(
        chosen_logp=chosen_logp,
        rejected_logp=torch.tensor(rejected, requires_grad=True),
        chosen_nll=-chosen_logp,
        has_rejected=torch.tensor(has),
        weight=torch.full((len(chosen),), 1 / len(chosen)),
    )


def gradients(objective: Objective, of: PairScores) -> tuple[list[float], list[float]]:
    objective(of).loss.backward()  # type: ignore[no-untyped-call]
    rejected = of.rejected_logp.grad
    assert of.chosen_logp.grad is not None
    return of.chosen_logp.grad.tolist(), [0.0] * len(of.rejected_logp) if rejected is None else rejected.tolist()


def test_the_log_ratio_is_sigmoid_of_the_difference() -> None:
    of = scores([-0.05, -0.3], [-0.25, math.nan], [True, False])
    found = LogRatio()(of)
    contrast = math.log(1 + math.exp(-0.2))
    assert found.odds_ratio.tolist() == pytest.approx([contrast, 0.0])
    assert found.margin.tolist() == pytest.approx([0.2, 0.0])
    assert found.loss.item() == pytest.approx((0.05 + contrast + 0.3) / 2)
    pushed = 1 / (1 + math.exp(0.2)) / 2
    assert gradients(LogRatio(), of) == (pytest.approx([-0.5 - pushed, -0.5]), pytest.approx([pushed, 0.0]))


def test_orpos_gradient_is_greater_by_the_odds_of_a_sure_student() -> None:
    """At equal traces both sigmoids are 1/2, so that the factor 1 / (1 - P) is all the difference."""
    logp = -0.05
    _, orpo = gradients(Orpo(1.0), scores([logp], [logp], [True]))
    _, ratio = gradients(LogRatio(), scores([logp], [logp], [True]))
    assert orpo[0] / ratio[0] == pytest.approx(1 / (1 - math.exp(logp)), rel=1e-4)


def test_nothing_pushed_down_is_orpo_but_for_the_rejected_gradient() -> None:
    given = ([-0.05, -0.3], [-0.25, -0.1], [True, True])
    assert NothingPushedDown()(scores(*given)).loss.item() == Orpo(1.0)(scores(*given)).loss.item()
    chosen, rejected = gradients(Orpo(1.0), scores(*given))
    assert max(map(abs, rejected)) > 0.1
    assert gradients(NothingPushedDown(), scores(*given)) == (pytest.approx(chosen), [0.0, 0.0])


def test_they_are_found_by_import_path() -> None:
    assert load_objective("orpo_ray.training.ablations:LogRatio", lam=1.0) == LogRatio()
    assert load_objective("orpo_ray.training.ablations:NothingPushedDown", lam=1.0) == NothingPushedDown()
