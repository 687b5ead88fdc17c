"""Weights & Biases: into files beside the run (offline), to be sent by `wandb sync`, or to its server."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal


class WandB:
    """A `Tracker`; one run in W&B for a run of ours, however often that is started.

    Args:
        directory: for its files.
        options: the configuration, as flat `section.option` names.
        known: the id of the run in W&B, where an earlier start made it.
    """

    def __init__(
        self,
        directory: Path,
        mode: Literal["offline", "online"],
        project: str,
        name: str,
        options: Mapping[str, Any],
        known: str | None,
    ) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        directory.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(console="off", x_disable_stats=True)
        self._run: Any = wandb.init(
            dir=str(directory), mode=mode, project=project, name=name, config=dict(options), id=known, resume="allow",
            settings=settings,
        )  # fmt: skip
        self.run_id = str(self._run.id)
        # W&B counts calls by itself; what belongs to one optimizer step may come in several.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()
