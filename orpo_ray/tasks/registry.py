"""Finds a task by its name, or a user's own by its import path."""

import inspect
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from orpo_ray.errors import DataError
from orpo_ray.tasks.foreign import ForeignTask
from orpo_ray.tasks.splits import NO_OTHERS, OtherSplits, SplitSize
from orpo_ray.tasks.task import Task

TASKS: Mapping[str, str] = {
    "gsm8k": "orpo_ray.tasks.gsm8k:GSM8KTask",
    "arc_challenge": "orpo_ray.tasks.multiple_choice:ARCChallengeTask",
    "openbookqa": "orpo_ray.tasks.multiple_choice:OpenBookQATask",
    "strategyqa": "orpo_ray.tasks.strategyqa:StrategyQATask",
    "medqa": "orpo_ray.tasks.multiple_choice:MedQATask",
    "open_ended": "orpo_ray.tasks.open_ended:OpenEndedTask",
    "arithmetic": "orpo_ray.tasks.arithmetic:ArithmeticTask",
}


def load_task(
    name: str,
    path: str | None = None,
    *,
    split: str = "train",
    sizes: Mapping[str, SplitSize] | None = None,
    seed: int = 0,
    others: OtherSplits = NO_OTHERS,
) -> Task:
    """The task called `name`, over one split of its rows.

    Args:
        name: one of `TASKS`, or `package.module:Class` for a user's own.
        path: a local JSONL or Parquet file, or a data set on the Hugging Face hub (`owner/name` or `owner/name:config`);
            the task's own data set on the hub, or its generator, where None.
        split: the split that the rows belong to.
        sizes: with it, all of `path` is cut into disjoint parts of these sizes and the rows are those of the part `split`;
            without it, all rows of `path` belong to `split`. See `split_rows`.
        seed: chooses which questions fall into which part.
        others: splits with data of their own; rows with one of their questions are left out, and counted (`left_out`).

    Raises:
        DataError: no task of that name; a file that is missing, empty or broken (file and line are named).
    """
    target = TASKS.get(name, name)
    if ":" not in target:
        raise DataError(
            f"unknown task {name!r}: known are {', '.join(TASKS)}; your own is named by its import path, package.module:Class"
        )
    task_class = _import(name, target)
    wanted: dict[str, Any] = {"path": path, "split": split, "sizes": sizes, "seed": seed}
    if name in TASKS:
        wanted["others"] = others
    taken = _keywords(task_class)
    make = partial(task_class, **{key: value for key, value in wanted.items() if key in taken or "**" in taken})
    if name in TASKS:
        return make()  # type: ignore[no-any-return]
    cut = sizes if sizes is not None and not {"sizes", "**"} & taken else None
    return ForeignTask(make, name=name, split=split, sizes=cut, seed=seed, others=others)


def _import(name: str, target: str) -> Any:
    module_name, _, class_name = target.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise DataError(f"task {name!r}: cannot import {module_name!r}: {error}") from error
    try:
        return getattr(module, class_name)
    except AttributeError:
        raise DataError(f"task {name!r}: module {module_name!r} has no class {class_name!r}") from None


def _keywords(task_class: Any) -> set[str]:
    """The keyword arguments that the constructor takes; `**` where it takes any."""
    parameters = inspect.signature(task_class).parameters.values()
    return {"**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
