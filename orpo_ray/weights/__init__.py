"""Live weights: the staleness gate, the shelf of published versions, and the actor that holds both."""

from orpo_ray.weights.gate import StalenessGate
from orpo_ray.weights.shelf import Shelf, Version

__all__ = ["Shelf", "StalenessGate", "Version"]
