"""What keeps a distillation one distillation: with what it began, and what may not change afterwards."""

import shutil

from orpo_ray.config import RunConfig
from orpo_ray.config.fingerprint import changed_fields, held_out, what_matters
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller.record import PhaseState, RunRecord
from orpo_ray.errors import ConfigError, InputError

PHASE = "DISTILL"
_FOLLOWING = (PHASE, "EVALUATE", "EXPORT")


class ChangedRunError(ConfigError):
    """The configuration differs from the one that the run's checkpoints were trained with; `problems` are the fields."""

    def __init__(self, run: str, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        InputError.__init__(
            self,
            f"{run}: its distillation began with another configuration, and mixing the two would spoil both\n{lines}\n"
            "Give the new one a name of its own with --set name=… (traces that both share are found again), or start "
            "this distillation anew with --fresh",
        )


def has_begun(record: RunRecord, layout: RunLayout) -> bool:
    """Whether there is work of the distillation that must not be mixed with another's: a checkpoint, or its end."""
    phase = record.phases.get(PHASE)
    return (phase is not None and phase.state is PhaseState.DONE) or has_checkpoint(layout)


def has_checkpoint(layout: RunLayout) -> bool:
    """Whether a checkpoint is committed; its directory appears by rename, so one that is there is whole."""
    return any(path.suffix != ".partial" for path in layout.checkpoints.glob("step-*"))


def refuse_other_configuration(record: RunRecord, layout: RunLayout, config: RunConfig) -> None:
    """Raises ChangedRunError where the distillation has begun with other options, naming each.

    Raises:
        InputError: there are checkpoints, but nothing says what they were trained with.
    """
    if not has_begun(record, layout):
        return
    if record.beginning is None:
        raise InputError(
            f"{layout.run}: holds checkpoints, but its run.json does not say what they were trained with; give this run "
            "another name with --set name=…, or start the distillation anew with --fresh"
        )
    changed = changed_fields(record.beginning.matters, what_matters(config))
    if changed:
        raise ChangedRunError(str(layout.run), changed)


def refuse_other_inputs(record: RunRecord, layout: RunLayout, config: RunConfig, phase: str, key: str) -> None:
    """Raises ChangedRunError where what `phase` reads (rows, models, traces) is not what the distillation began with.

    Args:
        key: of `phase`, as far as the pairs depend on it.
    """
    if record.beginning is None or not has_begun(record, layout):
        return
    before = {**record.beginning.upstream, PHASE: record.beginning.fingerprint}.get(phase, key)
    if before != key:
        moved = changed_fields(record.beginning.held_out, held_out(config)) if phase == "TEACH" else []
        what = {
            "TEACH": "the task's rows, the teacher's weights or its recorded traces",
            "SEED": "the teacher's traces or the student's weights",
            PHASE: "the pairs that it trains on",
        }[phase]
        raise ChangedRunError(
            str(layout.run), [*moved, f"{what} have changed (key of {phase}: was {before}, is {key})"]
        )


def start_anew(record: RunRecord, layout: RunLayout) -> None:
    """Remove all that belongs to the distillation, and what follows from it. Traces and pairs stay."""
    drop_leftovers(record, layout)
    for directory in (layout.evaluations, layout.tensorboard):
        shutil.rmtree(directory, ignore_errors=True)
    layout.tracked.unlink(missing_ok=True)


def drop_leftovers(record: RunRecord, layout: RunLayout) -> None:
    """Remove what a distillation left that got to no checkpoint.

    The initial student's evaluation stays, which SEED may have just made, and the trackers that have been told of it.
    """
    for directory in (
        layout.checkpoints,
        layout.weights,
        layout.journal,
        layout.ledger,
        layout.export,
        layout.run / "train",
    ):
        shutil.rmtree(directory, ignore_errors=True)
    for file in (layout.metrics, layout.run / "attempts.json"):
        file.unlink(missing_ok=True)
    record.beginning = None
    for phase in _FOLLOWING:
        record.phases.pop(phase, None)
