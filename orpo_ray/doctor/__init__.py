"""Whether a machine, a cluster and a configuration are fit for a run; each finding with its cure."""

from orpo_ray.doctor.examination import examine
from orpo_ray.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
