"""Statistics of an optimizer step as numbers that micro-batches and ranks combine, and their means at the end."""

from __future__ import annotations

import torch
from torch import Tensor

from orpo_ray.training.loss import OrpoLoss
from orpo_ray.training.objective import PairScores
from orpo_ray.training.packing import TraceBatch

NAMES = (
    "loss",
    "sft",
    "chosen_logp",
    "rejected_share",
    "odds_ratio",
    "margin",
    "rejected_logp",
    "accuracy",
    "sampler_share",
    "sampler_gap",
    "pairs",
    "scored_tokens",
    "computed_tokens",
    "unique_tokens",
    "rejected_gradient",
)
"""Their order. All but the last are sums. From `odds_ratio` to `accuracy` they run over pairs that have a rejected trace,
`sampler_gap` over those whose sampler left its log-probability; the two shares are what these are divided by. The last is
the largest of all pairs."""


def combined(parts: Tensor) -> Tensor:
    """The statistics of several micro-batches, or ranks, as those of one: [parts, len(NAMES)] to [len(NAMES)]."""
    return torch.cat([parts[:, :-1].sum(0), parts[:, -1:].amax(0)])


def batch_sums(batch: TraceBatch, scores: PairScores, result: OrpoLoss) -> Tensor:
    """Sums of one micro-batch, [len(NAMES)] float64 without gradient; before the backward pass."""
    gradient = _rejected_gradient(scores, result)
    with torch.no_grad():
        weight = scores.weight
        ranked = weight * scores.has_rejected
        gap = (scores.rejected_logp - batch.sampler_logp_K).abs()
        compared = ranked * gap.isfinite()
        sums = {
            "loss": result.loss,
            "sft": (weight * result.sft).sum(),
            "chosen_logp": (weight * scores.chosen_logp).sum(),
            "rejected_share": ranked.sum(),
            "odds_ratio": (ranked * result.odds_ratio).sum(),
            "margin": (ranked * result.margin).sum(),
            "rejected_logp": (ranked * scores.rejected_logp).sum(),
            "accuracy": (ranked * (result.margin > 0)).sum(),
            "sampler_share": compared.sum(),
            "sampler_gap": (compared * gap.nan_to_num(0.0, 0.0, 0.0)).sum(),
            "pairs": (weight > 0).sum(),
            "scored_tokens": batch.length_S.sum(),
            "computed_tokens": torch.tensor(batch.computed_tokens),
            "unique_tokens": torch.tensor(batch.unique_tokens),
            "rejected_gradient": gradient,
        }
        return torch.stack([sums[name].double().to(weight.device) for name in NAMES])


def _rejected_gradient(scores: PairScores, result: OrpoLoss) -> Tensor:
    """The largest |dL/dr| of a pair's own loss L in its rejected trace's mean log-probability r, [].

    By autograd over the few operations behind the scores, so that it holds for any objective.
    """
    nothing = scores.weight.new_zeros(())
    if not scores.rejected_logp.requires_grad or not result.loss.requires_grad:
        return nothing
    (gradient,) = torch.autograd.grad(result.loss, scores.rejected_logp, retain_graph=True, allow_unused=True)
    if gradient is None:
        return nothing
    of_pairs = torch.where(scores.has_rejected & (scores.weight > 0), gradient.abs() / scores.weight, 0.0)
    return of_pairs.max()


def summary(sums: Tensor) -> dict[str, float]:
    """Means of an optimizer step, from the statistics of all its micro-batches and ranks.

    `rejected_gradient` is the largest |dL/dr| of a pair: 1/|r| where the student is sure of a rejected trace.

    `sampler_gap` is the mean absolute difference between trainer and sampler in a rejected trace's mean token
    log-probability, nats: 0 up to rounding where the sampler ran the weights that are trained. Statistics over no pair
    at all are left out.
    """
    values = dict(zip(NAMES, sums.tolist(), strict=True))
    for share, names in {
        "rejected_share": ("odds_ratio", "margin", "rejected_logp", "accuracy"),
        "sampler_share": ("sampler_gap",),
    }.items():
        total = values[share]
        for name in names:
            value = values.pop(name)
            if total > 0:
                values[name] = value / total
    del values["sampler_share"]
    return values
