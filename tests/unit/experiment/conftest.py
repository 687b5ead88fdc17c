"""A small experiment."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orpo_ray.config.experiment import ExperimentConfig, load_experiment
from tests.unit.config.data import MINIMAL

EXPERIMENT: dict[str, Any] = {
    "name": "exp",
    "run": MINIMAL | {"train": {"epochs": 2, "global_batch": 4, "micro_batch": 2}, "policy": {"phi": 0.4}},
    "tasks": {"sums": {}, "more": {"task": {"name": "gsm8k"}}},
    "seeds": [0, 1],
}


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentConfig:
    return experiment_in(tmp_path)


def experiment_in(directory: Path) -> ExperimentConfig:
    """Read from a file, with its storage below `directory`."""
    file = directory / "experiment.yaml"
    file.write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    return load_experiment(file, [f"run.storage.path={directory / 'runs'}"])
