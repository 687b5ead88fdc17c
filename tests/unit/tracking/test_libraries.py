"""The trackers themselves, against their real libraries, with stores in a directory: what is read back is what was sent.

MLflow wants another version of a pinned package (cachetools), so it is not among the locked ones; nor is W&B, whose wheel
is large. `pip install 'orpo-ray[mlflow,wandb]'` into an environment of its own runs these tests.
"""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config.layout import RunLayout
from orpo_ray.tracking.follow import Following
from tests.unit.report.finished import EVALUATIONS, write_evaluations
from tests.unit.report.traced import METRICS
from tests.unit.tracking.test_follow import config

STEPS = {1: 2.5, 2: 1.25, 3: 0.5}
MORE = {4: 0.25}


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path, "toy")
    layout.run.mkdir()
    layout.state.touch()
    write_evaluations(layout.evaluations)
    return layout


def track(layout: RunLayout, steps: dict[int, float], **tracking: Any) -> None:
    """One start of the run, in which these steps are trained."""
    with layout.metrics.open("a") as file:
        file.writelines(json.dumps(METRICS | {"step": step, "loss": loss}) + "\n" for step, loss in steps.items())
    warnings: list[str] = []
    with Following(config(**{"tensorboard": False, **tracking}), layout, warnings.append):
        pass
    assert warnings == []


def accuracies() -> dict[int, float]:
    return {item["step"]: item["correct"] / item["total"] for item in EVALUATIONS}


def test_tensorboard(layout: RunLayout) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    track(layout, STEPS, tensorboard=True)
    track(layout, MORE, tensorboard=True)
    found: dict[int, float] = {}
    right: dict[int, float] = {}
    for file in layout.tensorboard.iterdir():
        events = EventAccumulator(str(file)).Reload()
        for name, values in (("train/loss", found), ("eval/test/accuracy", right)):
            if name in events.Tags()["tensors"]:
                assert events.SummaryMetadata(name).plugin_data.plugin_name == "scalars"
                values |= {event.step: make_ndarray(event.tensor_proto).item() for event in events.Tensors(name)}
    assert found == STEPS | MORE
    assert right == pytest.approx(accuracies())


def test_mlflow(layout: RunLayout) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed (extra `mlflow`)")
    from mlflow.tracking import MlflowClient

    track(layout, STEPS, mlflow=True, project="toys")
    track(layout, MORE, mlflow=True, project="toys")
    client = MlflowClient(tracking_uri=layout.mlflow.resolve().as_uri())
    experiment = client.get_experiment_by_name("toys")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "toy"
    assert run.info.status == "FINISHED"
    assert run.data.params["policy.phi"] == "0.5"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {metric.step: metric.value for metric in history} == STEPS | MORE
    history = client.get_metric_history(run.info.run_id, "eval/test/accuracy")
    assert {metric.step: metric.value for metric in history} == pytest.approx(accuracies())


def test_wandb_offline(layout: RunLayout) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed (extra `wandb`)")
    track(layout, STEPS, wandb="offline", project="toys")
    track(layout, MORE, wandb="offline", project="toys")
    files = sorted(layout.wandb.glob("wandb/offline-run-*/run-*.wandb"))
    assert len({file.stem for file in files}) == 1, "both starts are one run in W&B"
    rows = [row for file in files for row in _history(file)]
    assert {row["step"]: row["train/loss"] for row in rows if "train/loss" in row} == STEPS | MORE
    found = {row["step"]: row["eval/test/accuracy"] for row in rows if "eval/test/accuracy" in row}
    assert found == pytest.approx(accuracies())


def _history(file: Path) -> list[dict[str, Any]]:
    """Rows of a W&B transaction log: records of W&B's protocol in the log format of LevelDB, behind a header of 7 bytes.

    https://github.com/google/leveldb/blob/main/doc/log_format.md: blocks of 32 KiB; each piece has a checksum (4 bytes), a
    length (2), and a kind (1): whole, first, middle, last.
    """
    from wandb.proto import wandb_internal_pb2

    data, at, rows, record = file.read_bytes(), 7, list[dict[str, Any]](), b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(record)
            items = message.history.item
            if items:
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
            record = b""
    return rows
