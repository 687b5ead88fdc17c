"""run.json: what a run knows of itself, written whole or not at all."""

import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from orpo_ray.errors import InputError


class PhaseState(StrEnum):
    """Where a phase stands, or a whole run. A phase that has no record has not begun.

    `RUNNING` is also what a killed process leaves behind; the lock tells the two apart.
    """

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass
class PhaseRecord:
    """One phase.

    Attributes:
        fingerprint: the phase's key when it began.
        result: what it returned, plain JSON data; empty until it is done.
        seconds: time that it worked, over all starts with this fingerprint.
        started, finished: of the last start, ISO 8601 in UTC.
        error: why it failed.
    """

    state: PhaseState
    fingerprint: str
    started: str
    finished: str | None = None
    seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass
class Beginning:
    """What the distillation that the run's checkpoints belong to began with.

    Attributes:
        fingerprint: DISTILL's key.
        matters: every option that changes the pairs or the training (`config.fingerprint.what_matters`).
        held_out: the options of the held-out splits (`config.fingerprint.held_out`).
        upstream: the keys of the phases before it, as far as the pairs depend on them (`Phase.pairs_key`).
    """

    fingerprint: str
    matters: dict[str, Any]
    held_out: dict[str, Any]
    upstream: dict[str, str]


@dataclass
class RunRecord:
    """The whole of run.json.

    Attributes:
        orpo_ray: the version of this package that wrote it last.
        command: the command line that started it last, and resumes it.
        config: the resolved configuration.
        error: why it failed, where it did.
        beginning: None until DISTILL has been started.
    """

    name: str
    orpo_ray: str
    command: str
    state: PhaseState
    started: str
    finished: str | None
    config: dict[str, Any]
    error: str | None = None
    beginning: Beginning | None = None
    phases: dict[str, PhaseRecord] = field(default_factory=dict)

    def results(self) -> dict[str, dict[str, Any]]:
        """Results of the phases that are done."""
        return {name: phase.result for name, phase in self.phases.items() if phase.state is PhaseState.DONE}


def write_record(file: Path, record: RunRecord) -> None:
    """Write run.json so that a reader, or a start after a power cut, sees the old one or the new one."""
    partial = file.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as opened:
        json.dump(asdict(record), opened, indent=1, ensure_ascii=False)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(partial, file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_record(file: Path) -> RunRecord | None:
    """The record in `file`; None where there is none yet.

    Raises:
        InputError: the file is not a run.json that this version understands.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as a run's record: {error}") from None
    try:
        phases = {
            name: PhaseRecord(**{**phase, "state": PhaseState(phase["state"])})
            for name, phase in data.pop("phases").items()
        }
        beginning = data.pop("beginning")
        return RunRecord(
            **{**data, "state": PhaseState(data["state"])},
            beginning=Beginning(**beginning) if beginning else None,
            phases=phases,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: is not the record of a run that this version of orpo_ray understands ({error}); "
            "give the run another name with --set name=…"
        ) from None
