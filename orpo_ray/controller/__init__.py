"""A run as an explicit state machine, without Ray: which phase works, which is found, what is refused."""

from orpo_ray.controller.machine import ORDER, Controller
from orpo_ray.controller.record import PhaseRecord, PhaseState, RunRecord
from orpo_ray.controller.stopping import Interrupted
from orpo_ray.phases.phase import Phase

__all__ = ["ORDER", "Controller", "Interrupted", "Phase", "PhaseRecord", "PhaseState", "RunRecord"]
