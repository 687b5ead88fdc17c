"""ORPO at λ = 1 with one part of its contrast taken away: objectives that ask what a large λ does (docs/results).

    train: {objective: "orpo_ray.training.ablations:LogRatio"}

The contrast's gradient is σ(-margin) · (∇c / (1 - P(c)) - ∇r / (1 - P(r))), with c and r the mean token log-probabilities of the
chosen and the rejected trace and P = exp: a student that is sure of both (P near 1) has it multiplied by 1 / (1 - P).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from orpo_ray.training.loss import OrpoLoss
from orpo_ray.training.objective import Orpo, PairScores


@dataclass(frozen=True)
class LogRatio:
    """-log σ(c - r) in place of -log σ(log odds(c) - log odds(r)): the contrast without the factor 1 / (1 - P)."""

    uses_rejected: bool = True

    def __call__(self, scores: PairScores) -> OrpoLoss:
        rejected = torch.where(scores.has_rejected, scores.rejected_logp, scores.chosen_logp.detach()).double()
        margin = torch.where(scores.has_rejected, scores.chosen_logp.double() - rejected, 0.0)
        contrast = torch.where(scores.has_rejected, -F.logsigmoid(margin), 0.0)
        sft = scores.chosen_nll.double()
        return OrpoLoss((scores.weight.double() * (sft + contrast)).sum(), sft, contrast, margin)


@dataclass(frozen=True)
class NothingPushedDown:
    """ORPO's value, with a gradient through the chosen traces alone: no wrong trace is made less probable."""

    uses_rejected: bool = True

    def __call__(self, scores: PairScores) -> OrpoLoss:
        return Orpo(lam=1.0)(replace(scores, rejected_logp=scores.rejected_logp.detach()))
