"""Statistics of an optimizer step as sums that micro-batches and ranks add up, and their means at the end."""

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
)
"""Order of the sums. From `odds_ratio` to `accuracy` they run over pairs that have a rejected trace, `sampler_gap` over
those whose sampler left its log-probability; the two shares are what these are divided by."""


def batch_sums(batch: TraceBatch, scores: PairScores, result: OrpoLoss) -> Tensor:
    """Sums of one micro-batch, [len(NAMES)] float64 without gradient."""
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
        }
        return torch.stack([sums[name].double().to(weight.device) for name in NAMES])


def summary(sums: Tensor) -> dict[str, float]:
    """Means of an optimizer step, from the sums over all its micro-batches and ranks.

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
