"""One start of the worker group: from the newest whole checkpoint, with everything newer dropped (DESIGN promise 5)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_ray.config import Geometry
from orpo_ray.config.layout import RunLayout
from orpo_ray.sampling.journal import Journal
from orpo_ray.training.checkpoint import Checkpoint, drop_later_checkpoints, resumable_versions, whole_checkpoints
from orpo_ray.training.ledger import drop_uncommitted
from orpo_ray.weights import Version
from orpo_ray.weights.board import AttemptStart, answered
from orpo_ray.weights.published import IncompleteVersionError, check_published, drop_newer


@dataclass(frozen=True)
class Attempt:
    """A start, and the versions that are on the storage when it begins.

    Attributes:
        current: the newest version of the committed lineage.
        older: versions before it that are still there.
        passed_over: why newer checkpoints were not gone on from, a sentence each.
    """

    start: AttemptStart
    current: Version
    older: list[Version]
    passed_over: list[str]


def begin_attempt(layout: RunLayout, geometry: Geometry, initial: Version, board: Any, start_s: float = 600) -> Attempt:
    """Find where to go on from, drop the dead timeline, and tell the board.

    Gone on from is the newest checkpoint that is whole and whose version is. Dropped are: all other checkpoints after it,
    versions published after the one that is gone on from, ledger and
    metrics lines of later steps, evaluations of them, and journal blocks that a dropped version sampled. What is left
    is the committed lineage.
    """
    checkpoint, current, passed_over = _where_to_go_on(layout, initial)
    step = checkpoint.step if checkpoint else 0
    drop_later_checkpoints(layout.checkpoints, step)
    drop_newer(layout.weights, current.number)
    Journal(layout.journal, geometry.global_batch).drop_dead_timeline(step, current.number)
    drop_uncommitted(layout.ledger, step)
    _drop_later_metrics(layout.metrics, step)
    _drop_later_evaluations(layout.evaluations, step)
    start = AttemptStart(_next_number(layout), step, str(checkpoint.path) if checkpoint else None)
    older = [version for version in _on_storage(layout.weights) if version.number < current.number]
    answered(board.start_attempt.remote(start, current, older), start_s)
    # A board of a new driver knows of no checkpoint: what this one would resume with again must not go.
    answered(board.pin.remote(start.number, resumable_versions(layout.checkpoints)), start_s)
    return Attempt(start, current, older, passed_over)


def _where_to_go_on(layout: RunLayout, initial: Version) -> tuple[Checkpoint | None, Version, list[str]]:
    """The checkpoint, its version, and why newer ones will not do; None and the initial student where none will."""
    passed_over: list[str] = []
    for checkpoint in whole_checkpoints(layout.checkpoints):
        if checkpoint.version == 0:
            return checkpoint, initial, passed_over
        try:
            return checkpoint, _version(Path(checkpoint.version_path), layout.weights), passed_over
        except IncompleteVersionError as error:
            passed_over.append(f"checkpoint {checkpoint.path.name} is passed over: its version is not whole ({error})")
    return None, initial, passed_over


def _next_number(layout: RunLayout) -> int:
    """Attempts are counted over all starts of the driver, so that none is ever mistaken for another."""
    file = layout.run / "attempts.json"
    number = 1 + (json.loads(file.read_text())["started"] if file.exists() else 0)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"started": number}))
    partial.replace(file)
    return number


def _version(directory: Path, weights: Path) -> Version:
    # A checkpoint's manifest names the path; engines load no weights but the run's own.
    if directory.resolve().parent != weights.resolve():
        raise IncompleteVersionError(f"{directory} lies outside of {weights}, where this run's versions are")
    facts = check_published(directory)
    return Version(facts["number"], str(directory), facts["step"], facts["epoch"], phi=tuple(facts.get("phi", ())))


def _on_storage(weights: Path) -> list[Version]:
    versions = []
    for directory in sorted(weights.glob("v*")):
        try:
            versions.append(_version(directory, weights))
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
