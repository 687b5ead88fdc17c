"""PREPARE: everything that can be seen to be wrong is said before anything starts."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import InputError
from orpo_ray.phases.adapters import settled_config
from orpo_ray.phases.cluster import connect, embedded
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.environment import environment
from orpo_ray.phases.keys import file_fingerprint, rows_fingerprint
from orpo_ray.phases.needs import GIB, count_parameters, disk_bytes, machine_memory, required_resources
from orpo_ray.phases.phase import Phase
from orpo_ray.phases.student import is_converted, student_directory
from orpo_ray.tasks import Task
from orpo_ray.tasks.agreement import check_agreement
from orpo_ray.tasks.split_of import has_validation, split_of
from orpo_ray.traces.model_fingerprint import model_fingerprint


class Prepare(Phase):
    """The phase. Its work is the checks; found again on the same machine with the same options, models and files.

    Args:
        connect: connects to Ray, once all else is right, and sees that what the run asks for is there.
    """

    name = "PREPARE"

    def __init__(self, connect: Callable[[RunConfig], None] = connect) -> None:
        self._connect = connect

    def key(self, context: RunContext) -> str:
        """Changes with whatever is checked, and with the machine."""
        config = context.config
        checked = config.model_dump(mode="json", by_alias=True, exclude={"limits", "tracking", "name"})
        models = [
            model_fingerprint(name)
            for name in (config.student.model, *(teacher.model for teacher in config.teachers))
            if name
        ]
        files = [
            file_fingerprint(path)
            for path in (
                config.task.path,
                config.task.validation_path,
                config.task.test_path,
                *(teacher.path for teacher in config.teachers),
            )
            if path
        ]
        return fingerprint(checked, models, files, os.cpu_count(), machine_memory(), os.environ.get("RAY_ADDRESS"))

    def run(self, context: RunContext) -> dict[str, Any]:
        """Check all of it; every mistake is named in one message.

        Returns:
            `rows` (by split: prompts, rows left out since another split holds their question, and a fingerprint of all
            that they hold), `student` (fingerprint and parameters), `resources` (by phase, what is asked), `environment`
            (what it runs on) and `cores` (of an embedded cluster's machine).
        """
        config = context.config
        rows: dict[str, Task] = {}
        checks: list[Callable[[], None]] = [
            lambda: check_storage(config, context.layout),
            lambda: _check_student(context),
            lambda: _check_options(config),
            lambda: rows.update(_splits(config)),
        ]
        raise_all(checks)
        teachers = [partial(_check_teacher, one, rows["train"]) for one in config.of_teachers()]
        raise_all([*teachers, lambda: check_prompts(config, rows), lambda: _check_adapters(context)])
        agreement = check_agreement(config.task.judge) if config.task.judge is not None else None
        self._connect(config)
        for split, task in rows.items():
            if task.left_out:
                context.say("note", text=left_out(split, task))
        parameters = count_parameters(str(student_directory(config)))
        return {
            "rows": {
                split: {
                    "prompts": len(task.rows()),
                    "left_out": task.left_out,
                    "fingerprint": rows_fingerprint(task),
                }
                for split, task in rows.items()
            },
            "student": {"fingerprint": model_fingerprint(config.student.model), "parameters": parameters},
            "resources": required_resources(config, parameters),
            "environment": environment(),
            # Engines and workers of an embedded cluster share these, whatever they ask for.
            "cores": os.cpu_count() if embedded() else None,
            "judge": agreement.to_json() if agreement is not None else None,
        }

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """A check leaves nothing behind."""
        return True


def raise_all(checks: list[Callable[[], None]]) -> None:
    """Make every check; raises one InputError with what all of them found."""
    found = []
    for check in checks:
        try:
            check()
        except InputError as error:
            found.append(error)
    if len(found) == 1:
        raise found[0]
    if found:
        raise InputError("\n".join(str(error) for error in found))


def check_storage(config: RunConfig, layout: RunLayout) -> None:
    """Raises InputError where `storage.path` cannot be written, or its disk is too small for the run."""
    try:
        with tempfile.TemporaryFile(dir=layout.run):
            pass
        traces = layout.storage / "traces"
        traces.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=traces):
            pass
    except OSError as error:
        raise InputError(
            f"storage.path: {layout.storage} cannot be written ({error.strerror}); "
            "give a directory that this user may write to"
        ) from None
    needed, free = disk_bytes(config), shutil.disk_usage(layout.run).free
    if free < needed:
        raise InputError(
            f"storage.path: {layout.storage} has {free / GIB:.1f} GiB free, and this run writes about "
            f"{needed / GIB:.1f} GiB; free some, lower train.checkpoints_kept, or give another directory"
        )


def check_prompts(config: RunConfig, rows: dict[str, Task]) -> None:
    """Raises InputError where a prompt and the longest trace do not fit the student's context together."""
    from transformers import AutoTokenizer

    from orpo_ray.tasks.prompts import render_prompt

    tokenizer = AutoTokenizer.from_pretrained(
        str(student_directory(config)), trust_remote_code=config.student.trust_remote_code
    )
    context = config.student.engine.max_model_len
    for split, task in rows.items():
        option = "sampling.max_tokens" if split == "train" or config.eval.max_tokens is None else "eval.max_tokens"
        tokens = config.sampling.max_tokens if split == "train" else config.eval_max_tokens
        for row in task.rows():
            length = len(render_prompt(tokenizer, task.messages(row)))
            if length > context - tokens:
                raise InputError(
                    f"task row {row.id} ({split}): its prompt has {length} tokens; student.engine.max_model_len {context} "
                    f"less {option} {tokens} leaves {context - tokens}; raise the one or lower the other"
                )


def left_out(split: str, task: Task) -> str:
    """A sentence on the rows that are in a held-out split already."""
    own = "task.validation_path" if split == "validation" else "task.path"
    return (
        f"task: of {own}, {task.left_out} row{'' if task.left_out == 1 else 's'} with a question that a held-out split's "
        "own data hold too are left out"
    )


def _check_student(context: RunContext) -> None:
    from orpo_ray.engine.model_check import check_model

    config = context.config
    check_model(config.student.model, "student", trust_remote_code=config.student.trust_remote_code)
    directory = student_directory(config)
    if is_converted(config, directory):
        _check_length(config, directory)
        context.say("note", text=f"student.model: InternLM2, read as a Llama model from {directory}")


def _check_length(config: RunConfig, directory: Path) -> None:
    """Its scaling of positions, which works beyond the length it was trained for, is left out of the conversion."""
    longest = json.loads((directory / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    for option, tokens in (
        ("student.engine.max_model_len", config.student.engine.max_model_len),
        ("student.max_length", config.student.max_length),
    ):
        if tokens > longest:
            raise InputError(f"{option}: {tokens} tokens, but the InternLM2 student has positions for {longest}")


def _check_adapters(context: RunContext) -> None:
    """That the student has the layers which get adapters, and vLLM takes them where it has to."""
    from orpo_ray.training.lora import count_trainable

    lora = context.config.train.lora
    if lora is not None:
        trained = count_trainable(student_directory(context.config), lora)
        context.say("note", text=f"train.lora: {trained:,} parameters are trained")
        settled_config(context)


def _check_teacher(config: RunConfig, train: Task) -> None:
    from orpo_ray.teacher.access import check_teacher

    check_teacher(config, train)


def _check_options(config: RunConfig) -> None:
    """Options that name code of the user's own."""
    from orpo_ray.training.objective import load_objective

    if config.trains:
        load_objective(config.train.objective, config.train.lam)


def _splits(config: RunConfig) -> dict[str, Task]:
    """The task by split, with its rows read once."""
    splits = ["train", "test", *(["validation"] if has_validation(config.task) else [])]
    tasks = {split: split_of(config.task, split, config.seed) for split in splits}
    for split, task in tasks.items():
        if not task.rows() and task.left_out:
            raise InputError(f"{left_out(split, task)}, and none remain; give other files")
        if not task.rows():
            raise InputError(f"task: no {split} rows; raise task.{split}_size, or give more rows")
    return tasks
