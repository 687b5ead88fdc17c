"""The staleness gate: how far the samplers may run ahead of the trainer. Pure logic, no I/O.

Invariant. Row r of the stream is trained on by the student that has been published T(r) times: its training version,
known from r alone. A row may be sampled with version v only if

    T(r) ≤ v + max_staleness.

With max_staleness 0 every row is sampled by the very student that it trains: the paper's strict order. The rule is
AReaL's staleness capacity (arXiv 2505.24298) for a stream whose rows keep their order.
"""

from dataclasses import dataclass

from orpo_ray.config import Geometry


@dataclass(frozen=True)
class StalenessGate:
    """Which rows a version may sample."""

    geometry: Geometry
    max_staleness: int

    def training_version(self, row: int) -> int:
        """The version that is current when `row` is trained on."""
        return self.geometry.version_at(row // self.geometry.global_batch)

    def admits(self, last_row: int, version: int) -> bool:
        """Whether all rows up to `last_row` may be sampled with `version`."""
        return self.staleness(last_row, version) <= self.max_staleness

    def limit(self, version: int) -> int:
        """The first row that `version` may not sample."""
        epochs, versions = divmod(version + self.max_staleness + 1, self.geometry.versions_per_epoch)
        steps = epochs * self.geometry.steps_per_epoch + versions * self.geometry.steps_per_version
        return steps * self.geometry.global_batch

    def staleness(self, row: int, version: int) -> int:
        """Published versions between the student that sampled `row` and the one that it trains."""
        return self.training_version(row) - version
