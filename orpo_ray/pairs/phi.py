"""φ of each epoch: constant, on a schedule, or adapted to how diverse the live negatives have been.

The paper's argument for the mixed policy (section on mixed policy): fresh negatives are better but less diverse, so half
of them are anchored in the initial student. `adaptive` measures that instead of assuming it: while the live negatives of a
prompt differ as much as the initial student's, φ rises; where they begin to repeat themselves, it falls.

Pure: φ of an epoch is a function of the options and of what the committed epochs before it measured, so a resumed run
finds the same one, and so does every sampler.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orpo_ray.config import Geometry, RunConfig
from orpo_ray.config.method import PolicyConfig


@dataclass(frozen=True)
class Diversity:
    """How much prompts' wrong traces differ among themselves.

    A prompt with W wrong traces, D of which the ROUGE-L filter keeps, has W - 1 further ones, D - 1 of them novel: unlike
    D / W the share does not rise only because a better student makes fewer wrong traces.
    """

    further: int = 0
    novel: int = 0

    @classmethod
    def of_prompt(cls, wrong: int, distinct: int) -> "Diversity":
        return cls(wrong - 1, distinct - 1) if wrong else cls()

    def __add__(self, other: "Diversity") -> "Diversity":
        return Diversity(self.further + other.further, self.novel + other.novel)

    @property
    def share(self) -> float | None:
        """Share of further wrong traces that are novel, 0 to 1; None where no prompt had two wrong traces."""
        return self.novel / self.further if self.further else None


NOTHING_MEASURED = Diversity()


@dataclass(frozen=True)
class PhiRule:
    """φ of a run's epochs.

    Attributes:
        target: adaptive: the diversity at which φ stays.
        lag: adaptive: epochs between the last one that a φ depends on and its own, beyond the one before it. Rows may be
            sampled `max_staleness` versions early, when later epochs are not trained yet; so that the plan is the same
            whenever they are, φ looks only at what is then certain to be there.
    """

    policy: PolicyConfig
    epochs: int
    target: float = 1.0
    lag: int = 0

    @classmethod
    def of(cls, config: RunConfig, geometry: Geometry, initial: Diversity = NOTHING_MEASURED) -> "PhiRule":
        """The rule of a run.

        Args:
            initial: diversity of the initial student's wrong traces.
        """
        policy = config.live_policy
        target = policy.phi_target
        if target is None:
            target = 1.0 if initial.share is None else initial.share
        return cls(policy, geometry.epochs, target, -(-policy.max_staleness // geometry.versions_per_epoch))

    @property
    def adaptive(self) -> bool:
        return self.policy.phi_schedule == "adaptive"

    def phis(self, measured: Sequence[Diversity] = ()) -> tuple[float, ...]:
        """φ of each epoch, from the first, as far as it is determined.

        Args:
            measured: diversity of the live negatives of each epoch that has been trained, from the first; only `adaptive`
                looks at it.
        """
        if not self.adaptive:
            return scheduled(self.policy, self.epochs)
        phi = [self.policy.phi] * (1 + self.lag)
        for diversity in measured:
            share = diversity.share
            step = 0.0 if share is None else self.policy.phi_gain * (share - self.target)
            phi.append(min(max(phi[-1] + step, self.policy.phi_min), self.policy.phi_max))
        return tuple(phi[: self.epochs])


def scheduled(policy: PolicyConfig, epochs: int) -> tuple[float, ...]:
    """φ of each epoch where it depends on nothing but its number: policy.phi first, policy.phi_end last."""
    if policy.phi_schedule in ("constant", "adaptive") or epochs == 1:
        return (policy.phi,) * epochs
    assert policy.phi_end is not None, "checked when the configuration is read"
    progress = [epoch / (epochs - 1) for epoch in range(epochs)]
    if policy.phi_schedule == "cosine":
        progress = [0.5 - 0.5 * math.cos(math.pi * share) for share in progress]
    return tuple(policy.phi + share * (policy.phi_end - policy.phi) for share in progress)
