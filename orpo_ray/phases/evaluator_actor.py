"""The run's one evaluator: started by the first phase that has work for it, kept to the end."""

from pathlib import Path
from typing import Any

import ray

from orpo_ray.evaluation.evaluator import Evaluator, EvaluatorSpec
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.student import student_directory
from orpo_ray.tasks.split_of import has_validation, split_of


def running_evaluator(context: RunContext) -> Any:
    """The evaluator's handle; it is started where no earlier phase has done so."""
    if "evaluator" not in context.live:
        context.live["evaluator"] = start_evaluator(context)
    return context.live["evaluator"]


def start_evaluator(context: RunContext, *, model: Path | None = None, output: Path | None = None) -> Any:
    """Handle of an Evaluator actor over the run's held-out splits.

    Args:
        model: the directory that it starts on; the initial student where None.
        output: where its files go; the run's own place where None.
    """
    config, resources = context.config, context.config.resources
    splits = ["test"]
    if config.export.select == "best" and has_validation(config.task):
        splits.append("validation")
    spec = EvaluatorSpec(
        config=config,
        tasks={split: split_of(config.task, split, config.seed) for split in splits},
        initial=str(model or student_directory(config)),
        output=output or context.layout.evaluations,
    )
    actor = ray.remote(Evaluator).options(
        num_cpus=resources.evaluator_cpus,
        num_gpus=resources.evaluator_gpus,
        label_selector=resources.node_labels("evaluator") or None,
    )
    return actor.remote(spec)
