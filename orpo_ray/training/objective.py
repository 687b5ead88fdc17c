"""Objectives: from the scores of a micro-batch's pairs to its loss, behind one small interface."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from orpo_ray.errors import ConfigError
from orpo_ray.training.loss import OrpoLoss, orpo_loss


@dataclass(frozen=True)
class PairScores:
    """What a forward pass knows of its pairs, each [K], float64, nats."""

    chosen_logp: Tensor
    """Mean token log-probability of the chosen trace."""
    rejected_logp: Tensor
    """The same of the rejected trace; meaningless where there is none."""
    chosen_nll: Tensor
    """Negative log-likelihood per token of the chosen trace, and of the prompt where it is in the SFT scope."""
    has_rejected: Tensor
    """Bool: whether the pair has a rejected trace."""
    weight: Tensor
    """Share of the pair in the global batch's loss."""


@runtime_checkable
class Objective(Protocol):
    """What a user's own objective has to be."""

    @property
    def uses_rejected(self) -> bool:
        """False spares the computation of rejected traces."""
        ...

    def __call__(self, scores: PairScores) -> OrpoLoss:
        """The loss, weighted by `scores.weight`, and its parts for each pair."""
        ...


@dataclass(frozen=True)
class Orpo:
    """L_SFT + lam * L_OR: the default."""

    lam: float
    uses_rejected: bool = True

    def __call__(self, scores: PairScores) -> OrpoLoss:
        return orpo_loss(
            scores.chosen_logp,
            scores.rejected_logp,
            scores.chosen_nll,
            lam=self.lam,
            has_rejected=scores.has_rejected,
            pair_weight=scores.weight,
        )


@dataclass(frozen=True)
class Sft:
    """L_SFT alone: single-CoT and diverse-CoT fine-tuning."""

    uses_rejected: bool = False

    def __call__(self, scores: PairScores) -> OrpoLoss:
        return Orpo(lam=0.0)(scores)


def load_objective(spec: str, lam: float) -> Objective:
    """The objective called `orpo` or `sft`, or a user's own, `package.module:Name`, called without arguments.

    Raises:
        ConfigError: nothing of that name, or it is no `Objective`.
    """
    if spec == "orpo":
        return Orpo(lam)
    if spec == "sft":
        return Sft()
    module, _, name = spec.partition(":")
    if not module or not name:
        raise ConfigError([f"train.objective: {spec!r}; give orpo, sft, or package.module:Name"])
    try:
        objective = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise ConfigError([f"train.objective: {spec!r} cannot be imported: {error}"]) from error
    if not isinstance(objective, Objective):
        raise ConfigError([f"train.objective: {spec!r} has no `uses_rejected`, or cannot be called"])
    return objective
