"""Objectives of a user's own, by import path."""

from orpo_ray.training.loss import OrpoLoss
from orpo_ray.training.objective import PairScores, Sft


class InfiniteGradient:
    """The SFT loss, with a finite value and an infinite gradient."""

    uses_rejected = False

    def __call__(self, scores: PairScores) -> OrpoLoss:
        sft = Sft()(scores)
        excess = (sft.loss - sft.loss.detach()).sqrt()
        return OrpoLoss(sft.loss + excess, sft.sft, sft.odds_ratio, sft.margin)
