"""Objectives are found by name or import path, and what is none is refused by name."""

import pytest
import torch

from orpo_ray.errors import ConfigError
from orpo_ray.training.loss import OrpoLoss
from orpo_ray.training.objective import Orpo, PairScores, Sft, load_objective

SCORES = PairScores(
    chosen_logp=torch.tensor([-0.5, -0.4]),
    rejected_logp=torch.tensor([-0.8, float("nan")]),
    chosen_nll=torch.tensor([0.5, 0.4]),
    has_rejected=torch.tensor([True, False]),
    weight=torch.tensor([0.5, 0.5]),
)


class Likelihood:
    """A user's own."""

    uses_rejected = False

    def __call__(self, scores: PairScores) -> OrpoLoss:
        nll = scores.chosen_nll
        return OrpoLoss((scores.weight * nll).sum(), nll, nll * 0, nll * 0)


def test_names() -> None:
    assert load_objective("orpo", lam=0.25) == Orpo(lam=0.25)
    assert load_objective("sft", lam=0.25) == Sft()
    assert type(load_objective(f"{__name__}:Likelihood", lam=1.0)).__name__ == "Likelihood"


def test_values() -> None:
    odds_ratio = 0.4248327599
    assert load_objective("orpo", 2.0)(SCORES).loss.item() == pytest.approx((0.5 + 2 * odds_ratio + 0.4) / 2, rel=1e-6)
    assert load_objective("sft", 2.0)(SCORES).loss.item() == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("dpo", "give orpo, sft, or package.module:Name"),
        ("no_such_module:Loss", "cannot be imported"),
        (f"{__name__}:Missing", "cannot be imported"),
        ("builtins:object", "has no `uses_rejected`"),
    ],
)
def test_what_is_none_is_refused(spec: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_objective(spec, lam=1.0)
