"""Writes the report's files: what is there so far, whole or not at all.

<storage>/experiments/<name>/
  report.md  report.json  index.html  runs.csv  epochs.csv
  charts/*.svg
  runs/<run>.yaml   each run's configuration
  logs/<run>.log    what each run printed
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from orpo_ray.config.experiment import ExperimentConfig
from orpo_ray.experiment.comparison import compare
from orpo_ray.experiment.page import charts, page
from orpo_ray.experiment.results import RunResult, is_finished, read_result
from orpo_ray.experiment.runs import PlannedRun
from orpo_ray.experiment.text import accuracy_csv, epochs_csv, markdown


def write_report(
    experiment: ExperimentConfig,
    runs: Sequence[PlannedRun],
    storage: Path,
    failed: Mapping[str, str],
    known: dict[str, RunResult] | None = None,
) -> dict[str, Any]:
    """Compare what is done and write it; returns the report as data.

    Args:
        known: results that were read before, by name; those read now are added.
    """
    directory = report_directory(storage, experiment.name)
    results = {} if known is None else known
    for run in runs:
        if run.name not in results and is_finished(run, storage):
            results[run.name] = read_result(run, storage)
    report = compare(runs, results, failed)
    configuration = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    text = {
        "report.md": markdown(report, experiment.name),
        "report.json": json.dumps({"name": experiment.name} | report, indent=1, ensure_ascii=False),
        "index.html": page(report, experiment.name, configuration),
        "runs.csv": accuracy_csv(report),
        "epochs.csv": epochs_csv(report),
        **{f"charts/{name}.svg": svg for name, svg in charts(report).items()},
    }
    for name, content in text.items():
        write_whole(directory / name, content)
    return report


def report_directory(storage: Path, name: str) -> Path:
    """Where the report of the experiment `name` lies."""
    return storage / "experiments" / name


def write_whole(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)
