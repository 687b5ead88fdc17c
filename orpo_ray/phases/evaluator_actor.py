"""The run's one evaluator: started by the first phase that has work for it, kept to the end, through faults.

Ray starts it again where its process or its engine's died, up to `limits.failures` times, and gives it its unfinished
calls once more: they are idempotent, since what is evaluated is a file.
"""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from orpo_ray.config import RunConfig
from orpo_ray.errors import EvaluatorLostError, WaitTimeout
from orpo_ray.evaluation.evaluator import Evaluator, EvaluatorSpec, drop_other_evaluations
from orpo_ray.phases.adapters import settled_config
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.keys import evaluation_key
from orpo_ray.phases.retry import last_line, our_error
from orpo_ray.phases.student import student_directory
from orpo_ray.tasks.split_of import has_validation, split_of

_ANSWER_S = 10.0


def running_evaluator(context: RunContext) -> Any:
    """The evaluator's handle; it is started where no earlier phase has done so."""
    if "evaluator" not in context.live:
        context.live["evaluator"] = start_evaluator(context)
    return context.live["evaluator"]


def evaluated_splits(config: RunConfig) -> list[str]:
    """The held-out splits that students are evaluated on."""
    return ["test", *(["validation"] if config.export.select == "best" and has_validation(config.task) else [])]


def begin(context: RunContext, name: str, work: Any) -> None:
    """Keep the reference of a call of the evaluator under `name`; a call that fails is said at once.

    Training goes on without it; EVALUATE, which waits for its work, makes up for it or ends the run.
    """

    def look(done: Future[Any]) -> None:
        error = done.exception()
        if error is not None and "evaluator" in context.live:
            context.say("note", text=f"{what_happened(context, error)}; training goes on, EVALUATE comes back to it")

    context.live[name] = work
    work.future().add_done_callback(look)


def what_happened(context: RunContext, error: BaseException) -> str:
    """Why a call of the evaluator failed, in one line."""
    if isinstance(error, RayActorError):
        limit = context.config.limits.failures
        return f"the evaluator died more often than limits.failures ({limit}) allows; the last time: {last_line(error)}"
    return f"the evaluator failed: {our_error(error) or last_line(error)}"


def wait_for(context: RunContext, evaluator: Any, work: Any) -> Any:
    """What a call of the evaluator returns.

    Raises:
        WaitTimeout: it was not done within `limits.evaluate_s`; says what the evaluator is at.
        EvaluatorLostError: it died more often than `limits.failures` allows.
    """
    limit = context.config.limits.evaluate_s
    try:
        return ray.get(work, timeout=limit)
    except GetTimeoutError:
        raise WaitTimeout(
            f"limits.evaluate_s: the evaluator was not done within {limit:g} s; {_what_it_does(evaluator)}"
        ) from None
    except RayActorError as error:
        raise EvaluatorLostError(f"{what_happened(context, error)}; what it has evaluated is kept") from None


def _what_it_does(evaluator: Any) -> str:
    try:
        return str(ray.get(evaluator.doing.remote(), timeout=_ANSWER_S))
    except (GetTimeoutError, RayActorError):
        return f"nor did it say within {_ANSWER_S:g} s what it is at"


def start_evaluator(context: RunContext, *, model: Path | None = None, output: Path | None = None) -> Any:
    """Handle of an Evaluator actor over the run's held-out splits.

    Args:
        model: the directory that it starts on; the initial student where None.
        output: where its files go; the run's own place where None.
    """
    config, resources = settled_config(context), context.config.resources
    held_out = ["test", *(["validation"] if has_validation(config.task) else [])]
    tasks = {split: split_of(config.task, split, config.seed) for split in held_out}
    keys = {split: evaluation_key(config, task) for split, task in tasks.items()}
    spec = EvaluatorSpec(
        config=config,
        tasks={split: tasks[split] for split in evaluated_splits(config)},
        keys=keys,
        initial=str(model or student_directory(config)),
        output=output or context.layout.evaluations,
    )
    dropped = drop_other_evaluations(spec.output, keys)
    if dropped:
        context.say(
            "note",
            text=f"{', '.join(dropped)}: made with other `eval` options or rows, so they are dropped; "
            "students that are still on the storage are evaluated anew",
        )
    actor = ray.remote(Evaluator).options(
        max_restarts=config.limits.failures,
        # Its deaths are what is limited; until Ray knows that a node is gone, it tries again every second.
        max_task_retries=-1,
        num_cpus=resources.evaluator_cpus,
        num_gpus=resources.evaluator_gpus,
        label_selector=resources.node_labels("evaluator") or None,
    )
    return actor.remote(spec)
