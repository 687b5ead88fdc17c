"""The weight check: how probable a fixed trace is to the student that was trained, and to the one that was loaded.

The trainer writes it into a version's manifest; an engine that has loaded the version must say the same. It finds
weights that were not loaded, or loaded wrongly. Two versions whose difference is below the engine's own rounding it
cannot tell apart.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

FACT = "probe"
# Mean log-probability of a trace, nats a token. Kernels differ in the order of their sums: by 1e-5 in 32 bits, and by
# some 1e-2 in 16, where a weight has two or three digits.
_TOLERANCE_32, _TOLERANCE_16 = 2e-3, 0.1


@dataclass(frozen=True)
class Probe:
    """A trace and its mean log-probability behind a prompt, nats a token, with the weights in precision `dtype`."""

    prompt: list[int]
    trace: list[int]
    logp: float
    dtype: str

    def fact(self) -> dict[str, Any]:
        """What the manifest holds."""
        return asdict(self)

    def gap(self, logp: Sequence[float]) -> float:
        """Distance between the trainer's mean and that of an engine, given its log-probabilities of the trace."""
        return abs(sum(logp) / len(logp) - self.logp)

    def tolerance(self, engine_dtype: str) -> float:
        """Largest gap that rounding explains, in the coarser of the two precisions."""
        return _TOLERANCE_32 if {self.dtype, engine_dtype} == {"float32"} else _TOLERANCE_16


def probe_of(facts: dict[str, Any]) -> Probe | None:
    """The probe in a version's manifest; None where the trainer wrote none."""
    fact = facts.get(FACT)
    return None if fact is None else Probe(**fact)
