"""One start of the worker group: from the newest whole checkpoint, with everything newer dropped (DESIGN promise 5)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from orpo_ray.config import Geometry
from orpo_ray.config.layout import RunLayout
from orpo_ray.sampling.journal import Journal
from orpo_ray.training.checkpoint import drop_later_checkpoints, newest_checkpoint, resumable_versions
from orpo_ray.training.ledger import drop_uncommitted
from orpo_ray.weights import Version
from orpo_ray.weights.board import AttemptStart
from orpo_ray.weights.published import IncompleteVersionError, check_published, drop_newer


@dataclass(frozen=True)
class Attempt:
    """A start, and the versions that are on the storage when it begins.

    Attributes:
        current: the newest version of the committed lineage.
        older: versions before it that are still there.
    """

    start: AttemptStart
    current: Version
    older: list[Version]


def begin_attempt(layout: RunLayout, geometry: Geometry, initial: Version, board: Any) -> Attempt:
    """Find where to go on from, drop the dead timeline, and tell the board.

    Dropped are: checkpoints that are not whole, versions published after the one that is gone on from, ledger and
    metrics lines of later steps, evaluations of them, and journal blocks that a dropped version sampled. What is left
    is the committed lineage.
    """
    checkpoint = newest_checkpoint(layout.checkpoints)
    step = checkpoint.step if checkpoint else 0
    drop_later_checkpoints(layout.checkpoints, step)
    current = initial
    if checkpoint is not None and checkpoint.version > 0:
        check_published(Path(checkpoint.version_path))
        current = _version(Path(checkpoint.version_path))
    drop_newer(layout.weights, current.number)
    Journal(layout.journal, geometry.global_batch).drop_dead_timeline(step, current.number)
    drop_uncommitted(layout.ledger, step)
    _drop_later_metrics(layout.metrics, step)
    _drop_later_evaluations(layout.evaluations, step)
    start = AttemptStart(_next_number(layout), step, str(checkpoint.path) if checkpoint else None)
    older = [version for version in _on_storage(layout.weights) if version.number < current.number]
    ray.get(board.start_attempt.remote(start, current, older))
    # A board of a new driver knows of no checkpoint: what this one would resume with again must not go.
    ray.get(board.pin.remote(start.number, resumable_versions(layout.checkpoints)))
    return Attempt(start, current, older)


def _next_number(layout: RunLayout) -> int:
    """Attempts are counted over all starts of the driver, so that none is ever mistaken for another."""
    file = layout.run / "attempts.json"
    number = 1 + (json.loads(file.read_text())["started"] if file.exists() else 0)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"started": number}))
    partial.replace(file)
    return number


def _version(directory: Path) -> Version:
    facts = check_published(directory)
    return Version(facts["number"], str(directory), facts["step"], facts["epoch"])


def _on_storage(weights: Path) -> list[Version]:
    versions = []
    for directory in sorted(weights.glob("v*")):
        try:
            versions.append(_version(directory))
        except IncompleteVersionError:
            continue
    return versions


def _drop_later_metrics(file: Path, step: int) -> None:
    if not file.exists():
        return
    lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.replace(file)


def _drop_later_evaluations(directory: Path, step: int) -> None:
    for file in directory.glob("epoch-*.json"):
        if json.loads(file.read_text())["step"] > step:
            file.unlink()
