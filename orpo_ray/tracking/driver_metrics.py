"""What the driver knows of a run, as metrics: which phase works, how far it is, and how it ended. A listener of events."""

import os
import time
from collections.abc import Mapping
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.tracking.meter import RUN_VARIABLE, record

REPORT_S = 10.0
"""Longest time between two reports of a process's metrics (Ray's metrics_report_interval_ms)."""


class DriverMetrics:
    """Called with each event's kind and fields.

    Args:
        lasting: whether the cluster lives on after this process, so that somebody can still read how the run ended.
    """

    def __init__(self, config: RunConfig, *, lasting: bool) -> None:
        os.environ[RUN_VARIABLE] = config.name
        self._config, self._lasting = config, lasting

    def __call__(self, kind: str, fields: Mapping[str, Any]) -> None:
        match kind:
            case "phase.start":
                self._configured()
                record("orpo_phase_running", 1.0, phase=fields["phase"].lower())
            case "phase.done":
                phase = fields["phase"].lower()
                record("orpo_phase_running", 0.0, phase=phase)
                record("orpo_phase_progress", 1.0, phase=phase)
                record("orpo_phase_seconds", fields["seconds"], phase=phase)
                if phase == "teach" and fields["result"].get("traces"):
                    record("orpo_teacher_accuracy", fields["result"]["right"] / fields["result"]["traces"])
            case "teach.progress" | "seed.progress" if fields["total"]:
                record("orpo_phase_progress", fields["done"] / fields["total"], phase=kind.partition(".")[0])
            case "distill.progress" if fields["steps"]:
                record("orpo_phase_progress", fields["step"] / fields["steps"], phase="distill")
            case "run.failed":
                self._failed(fields)

    def _configured(self) -> None:
        # Said at each phase: at the first ones Ray may not run yet.
        record("orpo_train_staleness_bound", self._config.policy.max_staleness)
        record("orpo_engines_configured", self._config.resources.samplers, group="sampler")
        record("orpo_engines_configured", 1, group="evaluator")

    def _failed(self, fields: Mapping[str, Any]) -> None:
        phase = fields["phase"].lower()
        record("orpo_phase_running", 0.0, phase=phase)
        record("orpo_run_failures_total", phase=phase, cause=fields["cause"])
        if self._lasting:
            time.sleep(REPORT_S + 1)  # else this process is gone before it has said so
