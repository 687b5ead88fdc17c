"""The plan: which prompt each row of the stream trains on, and where its negatives come from (DESIGN promise 2).

A row is a function of (seed, epoch, prompt id), so the plan can be rebuilt from any cursor, on any machine, and costs
no memory. The stream's rows run over all epochs; each epoch is filled up to whole global batches with rows of weight 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from orpo_ray.config import Geometry
from orpo_ray.pairs.draw import draw, permuted, uniform

Policy = Literal["live", "initial"]


@dataclass(frozen=True)
class PlanRow:
    """One row of the stream.

    Attributes:
        index: place in the stream, from 0.
        epoch: from 1.
        position: place of the prompt in the pair source; a padding row repeats a prompt of its epoch.
        prompt_id: the prompt's id.
        policy: the φ coin: whether negatives are sampled from the live student or taken from the initial one.
        seed: seeds the K traces of the row.
        real: False for a row that only fills up the epoch's last global batch (weight 0).
    """

    index: int
    epoch: int
    position: int
    prompt_id: str
    policy: Policy
    seed: int
    real: bool


@dataclass(frozen=True)
class Plan:
    """Every row of a run's stream, made when asked for.

    Attributes:
        phi: φ of each epoch, from the first (`PhiRule`); an epoch past its end cannot be planned yet.
        prompt_id: the id of the prompt at a position of the pair source.
    """

    seed: int
    phi: Sequence[float]
    geometry: Geometry
    prompt_id: Callable[[int], str]

    def row(self, index: int) -> PlanRow:
        """The row at `index`, 0 ≤ index < geometry.rows."""
        epoch, place = divmod(index, self.geometry.rows_per_epoch)
        epoch += 1
        prompts = self.geometry.prompts
        real = place < prompts
        position = permuted(place % prompts, prompts, draw(self.seed, "order", epoch))
        prompt_id = self.prompt_id(position)
        # A padding row costs no sampling: its gradient is zero whatever its negatives are.
        live = real and uniform(self.seed, "coin", epoch, prompt_id) < self._phi(epoch)
        return PlanRow(
            index=index,
            epoch=epoch,
            position=position,
            prompt_id=prompt_id,
            policy="live" if live else "initial",
            seed=draw(self.seed, "traces", epoch, prompt_id) >> 33,
            real=real,
        )

    def _phi(self, epoch: int) -> float:
        if epoch > len(self.phi):
            raise ValueError(f"φ of epoch {epoch} is not determined yet, only of the first {len(self.phi)}")
        return self.phi[epoch - 1]
