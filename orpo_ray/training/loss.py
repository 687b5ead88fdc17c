"""The ORPO loss (arXiv 2403.07691, equations 4 to 7) over mean token log-probabilities, without a reference model.

Legend: K = pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

MAX_LOGP = -1e-7
"""Log-probabilities are clamped to this: at 0 the odds are infinite, and so would be the gradient."""


@dataclass(frozen=True)
class OrpoLoss:
    """What `orpo_loss` found. `loss` is one number to call backward on; the others hold one value a pair.

    A pair without a rejected trace has odds_ratio 0 and margin 0.
    """

    loss: Tensor
    """Weighted mean over pairs of sft + lam * odds_ratio, shape []."""
    sft: Tensor
    """L_SFT, the negative log-likelihood of the chosen trace, shape [K]."""
    odds_ratio: Tensor
    """L_OR = -log sigmoid(margin), shape [K]."""
    margin: Tensor
    """log odds(chosen) - log odds(rejected), shape [K]: positive where the student prefers the chosen trace."""


def log_odds(logp: Tensor) -> Tensor:
    """log(q / (1 - q)) for q = exp(logp), in float64.

    One branch, `x - log(-expm1(x))`, so that no unselected branch can send a NaN into the gradient. `log1p(-exp(x))`
    loses everything near x = 0 in low precision.

    Args:
        logp: mean token log-probabilities in nats, any shape. Values above `MAX_LOGP` are clamped to it and get no
            gradient.

    Returns:
        float64 tensor of the same shape.
    """
    clamped = logp.double().clamp(max=MAX_LOGP)
    return clamped - torch.log(-torch.expm1(clamped))


def orpo_loss(
    chosen_logp: Tensor,
    rejected_logp: Tensor,
    chosen_nll: Tensor,
    lam: float,
    has_rejected: Tensor | None = None,
    pair_weight: Tensor | None = None,
) -> OrpoLoss:
    """L = L_SFT + lam * L_OR, summed over pairs with weights (PAPER: section 3; ORPO: equations 6 and 7).

    Args:
        chosen_logp: [K] mean token log-probability of each pair's chosen trace, nats.
        rejected_logp: [K] the same for the rejected trace. Ignored, whatever it holds, where `has_rejected` is False.
        chosen_nll: [K] negative log-likelihood per token of the chosen trace.
        lam: weight of the odds-ratio term (1.0 in ORPO-Distill).
        has_rejected: [K] bool; False makes a pair plain SFT. Default: all True.
        pair_weight: [K] share of each pair in the loss; default 1/K each, the plain mean. A trainer passes
            row weight / pairs of the group / real rows of the *global* batch: the sum over all ranks and micro-batches
            is then the loss of the global batch, however it was cut.

    Returns:
        `OrpoLoss` in float64.

    Raises:
        ValueError: the tensors are not all of one shape [K] with K > 0.
    """
    shape = chosen_logp.shape
    given = {"rejected_logp": rejected_logp, "chosen_nll": chosen_nll}
    optional = {"has_rejected": has_rejected, "pair_weight": pair_weight}
    given |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    for name, tensor in given.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, chosen_logp has {list(shape)}; one value a pair")
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"expected one value for each of at least one pair, got shape {list(shape)}")

    if has_rejected is None:
        has_rejected = torch.ones_like(chosen_logp, dtype=torch.bool)
    # Replaced before any arithmetic: a NaN that enters a product with 0 stays a NaN, in value and in gradient.
    rejected_logp = torch.where(has_rejected, rejected_logp, torch.full_like(rejected_logp, -1.0))
    margin = torch.where(has_rejected, log_odds(chosen_logp) - log_odds(rejected_logp), 0.0)
    odds_ratio = torch.where(has_rejected, -F.logsigmoid(margin), 0.0)
    sft = chosen_nll.double()
    if pair_weight is None:
        pair_weight = torch.full_like(sft, 1.0 / shape[0])
    loss = (pair_weight.double() * (sft + lam * odds_ratio)).sum()
    return OrpoLoss(loss=loss, sft=sft, odds_ratio=odds_ratio, margin=margin)
