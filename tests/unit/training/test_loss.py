"""The loss against the reference values of the method's description, against TRL, and by finite differences."""

import math
from types import SimpleNamespace

import pytest
import torch

from orpo_ray.training.loss import log_odds, orpo_loss


def one(value: float, requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float32, requires_grad=requires_grad)


# c, r, log sigmoid(z): computed outside this project
REFERENCE = [(-0.5, -0.8, -0.4248327599), (0.0, 0.0, -0.693147), (-0.5, 0.0, -15.6853)]


@pytest.mark.parametrize(("chosen", "rejected", "log_sigmoid"), REFERENCE)
def test_odds_ratio_has_the_reference_values(chosen: float, rejected: float, log_sigmoid: float) -> None:
    out = orpo_loss(one(chosen), one(rejected), one(-chosen), lam=1.0)
    # single precision inputs carry 6e-8; the table itself has 6 to 10 digits
    assert out.odds_ratio.item() == pytest.approx(-log_sigmoid, rel=4e-6)
    assert out.loss.item() == pytest.approx(-chosen - log_sigmoid, rel=4e-6)


def test_gradients_have_the_reference_values() -> None:
    chosen, rejected = one(-0.5, requires_grad=True), one(-0.8, requires_grad=True)
    orpo_loss(chosen, rejected, torch.zeros(1), lam=1.0).loss.backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert -chosen.grad.item() == pytest.approx(0.8796641, rel=1e-6)
    assert -rejected.grad.item() == pytest.approx(-0.6285438, rel=1e-6)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    chosen, rejected, nll = (torch.rand(6, dtype=torch.float64) * scale + 1e-3 for scale in (2.0, 1.0, 2.0))
    weight = torch.rand(6, dtype=torch.float64)
    mask = torch.tensor([True, True, False, True, True, False])
    inputs = [(-chosen).requires_grad_(), (-rejected).requires_grad_(), nll.requires_grad_()]
    assert torch.autograd.gradcheck(lambda c, r, n: orpo_loss(c, r, n, 0.7, mask, weight).loss, inputs)


def test_equals_trl() -> None:
    orpo_trainer = pytest.importorskip("trl.experimental.orpo.orpo_trainer")
    torch.manual_seed(1)
    chosen, rejected = -torch.rand(64) * 3 - 1e-3, -torch.rand(64) * 3 - 1e-3
    trainer = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device=torch.device("cpu")))
    losses, *_, log_odds_ratio, log_odds_chosen = orpo_trainer.ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)
    out = orpo_loss(chosen, rejected, -chosen, lam=0.3)
    torch.testing.assert_close((0.3 * out.odds_ratio).float(), -losses, rtol=2e-5, atol=1e-6)
    assert out.odds_ratio.mean().item() == pytest.approx(-log_odds_ratio.item(), rel=1e-5)
    assert out.margin.mean().item() == pytest.approx(log_odds_chosen.item(), rel=1e-4, abs=1e-5)
    assert out.loss.item() == pytest.approx(-chosen.mean().item() - losses.mean().item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("logp", [-1e-3, -2e-8, -1e-12, 0.0])
def test_confident_traces_keep_value_and_gradient_finite(dtype: torch.dtype, logp: float) -> None:
    x = torch.tensor([logp], dtype=dtype, requires_grad=True)
    value = log_odds(x)
    value.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(value).all()
    assert torch.isfinite(x.grad).all()
    exact = min(float(x.detach()), -1e-7)
    assert value.item() == pytest.approx(exact - math.log(-math.expm1(exact)), rel=1e-12)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 0.0, -3.0])
def test_a_pair_without_rejected_trace_is_plain_sft(junk: float) -> None:
    chosen = torch.tensor([-0.5, -0.7], requires_grad=True)
    rejected = torch.tensor([-0.8, junk], requires_grad=True)
    nll = -chosen
    out = orpo_loss(chosen, rejected, nll, lam=2.0, has_rejected=torch.tensor([True, False]))
    out.loss.backward()
    assert out.loss.item() == pytest.approx(((0.5 + 2 * 0.4248327599) + 0.7) / 2, rel=1e-6)
    assert out.odds_ratio[1].item() == 0.0
    assert out.margin[1].item() == 0.0
    assert rejected.grad is not None
    assert rejected.grad[1].item() == 0.0
    assert chosen.grad is not None
    assert chosen.grad[1].item() == pytest.approx(-0.5)


def test_weights_make_the_loss_additive_over_any_cut() -> None:
    torch.manual_seed(2)
    chosen, rejected = -torch.rand(12) - 0.01, -torch.rand(12) - 0.01
    # two groups of 4 and 8 pairs, both real rows
    weight = torch.tensor([1 / 4 / 2] * 4 + [1 / 8 / 2] * 8, dtype=torch.float64)
    whole = orpo_loss(chosen, rejected, -chosen, 1.0, pair_weight=weight).loss
    by_group = [orpo_loss(chosen[s], rejected[s], -chosen[s], 1.0).loss for s in (slice(0, 4), slice(4, 12))]
    assert whole.item() == pytest.approx(sum(x.item() for x in by_group) / 2, rel=1e-12)
    cuts = [slice(0, 3), slice(3, 7), slice(7, 12)]
    parts = [orpo_loss(chosen[s], rejected[s], -chosen[s], 1.0, pair_weight=weight[s]).loss for s in cuts]
    assert sum(x.item() for x in parts) == pytest.approx(whole.item(), rel=1e-12)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rejected_logp has shape \[2\]"):
        orpo_loss(torch.zeros(3), torch.zeros(2), torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="at least one pair"):
        orpo_loss(torch.zeros(0), torch.zeros(0), torch.zeros(0), 1.0)
