"""EVALUATE: wait for the evaluator, which has worked beside training, and collect what it found."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.engine.adapters import is_adapter
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.evaluator_actor import evaluated_splits, running_evaluator, start_evaluator, wait_for
from orpo_ray.phases.keys import evaluation_key, result_of
from orpo_ray.phases.phase import Phase
from orpo_ray.phases.retry import decide, whole
from orpo_ray.phases.student import in_known_layout, student_directory
from orpo_ray.tasks.split_of import split_of
from orpo_ray.weights import Version
from orpo_ray.weights.published import IncompleteVersionError, check_published


class Evaluate(Phase):
    """The phase."""

    name = "EVALUATE"

    def key(self, context: RunContext) -> str:
        """Changes with the held-out rows, with how they are asked, and with the students."""
        config = context.config
        asked = [
            evaluation_key(config, split_of(config.task, split, config.seed)) for split in evaluated_splits(config)
        ]
        return fingerprint(asked, result_of(context, "DISTILL"))

    def run(self, context: RunContext) -> dict[str, Any]:
        """Accuracy before, after every epoch and at the end."""
        try:
            self._finish(context)
        finally:
            evaluator = context.live.pop("evaluator", None)
            if evaluator is not None:
                _end(evaluator)
        evaluations = [_short(file) for file in sorted(context.layout.evaluations.glob("epoch-*.json"))]
        for evaluation in evaluations:
            context.say("evaluate.done", **{name: evaluation[name] for name in ("epoch", "split", "correct", "total")})
        return {"evaluations": evaluations}

    def _finish(self, context: RunContext) -> None:
        """Wait for the evaluator that followed DISTILL, and make up for what is missing, through faults."""
        failures, limit = 0, context.config.limits.failures
        following = context.live.pop("following", None)
        while True:
            try:
                if following is not None:
                    wait_for(context, running_evaluator(context), following)
                # A start that found DISTILL finished has no evaluator that followed it.
                for version in self._versions(context):
                    evaluator = running_evaluator(context)
                    wait_for(context, evaluator, evaluator.evaluate.remote(version))
                return
            except Exception as error:
                failures, following = failures + 1, None
                decision = decide(error, failures, limit, what="the evaluator", then="it is asked again")
                if not decision.retry:
                    raise decision.error from error
                context.say("fault", error=whole(error))
                context.say("note", text=decision.reason)

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """Whether the evaluation files are on the storage."""
        return len(list(context.layout.evaluations.glob("epoch-*.json"))) == len(result["evaluations"])

    def _versions(self, context: RunContext) -> list[Version]:
        """The initial student, and every published end of an epoch that is still on the storage."""
        versions = [Version(0, str(student_directory(context.config)), step=0, epoch=0)]
        for directory in sorted(context.layout.weights.glob("v*")):
            try:
                facts = check_published(directory)
            except IncompleteVersionError as error:
                context.say("note", text=f"not evaluated, unless it was before: {error}")
                continue
            if facts["epoch"] is not None:
                versions.append(Version(facts["number"], str(directory), facts["step"], facts["epoch"]))
        return versions


def evaluate_model(context: RunContext, model: Path) -> list[dict[str, Any]]:
    """Held-out accuracy of the model in a directory: what `orpo-ray eval` prints."""
    with tempfile.TemporaryDirectory() as output, _whole_model(context, model) as model:
        evaluator = start_evaluator(context, model=model, output=Path(output))
        try:
            version = Version(0, str(model), step=0, epoch=0)
            results: list[dict[str, Any]] = wait_for(context, evaluator, evaluator.evaluate.remote(version))
            return results
        finally:
            _end(evaluator)


@contextmanager
def _whole_model(context: RunContext, model: Path) -> Iterator[Path]:
    """The model in a layout that vLLM knows; of an adapter the student with it merged in, as long as it is needed."""
    if not is_adapter(model):
        yield in_known_layout(context.config, model)
        return
    from orpo_ray.training.publish import merge_adapter

    # Where every node sees it: the evaluator may be on another.
    context.layout.storage.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=context.layout.storage) as merged:
        merge_adapter(student_directory(context.config), model, Path(merged))
        yield Path(merged)


def _end(evaluator: Any) -> None:
    """Stop the engine's processes, then the actor."""
    try:
        ray.get(evaluator.stop.remote(), timeout=30)
    except (GetTimeoutError, ray.exceptions.RayError):
        pass
    finally:
        ray.kill(evaluator)


def _short(file: Path) -> dict[str, Any]:
    evaluation: dict[str, Any] = json.loads(file.read_text())
    return {name: value for name, value in evaluation.items() if name not in ("samples", "right")}
