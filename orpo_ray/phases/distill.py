"""DISTILL: one stream over all epochs, from samplers on live weights to the worker group and back."""

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from orpo_ray.config import Geometry
from orpo_ray.config.fingerprint import fingerprint, what_matters
from orpo_ray.errors import WaitTimeout
from orpo_ray.pairs import Diversity, PairSource, PhiRule
from orpo_ray.phases.adapters import settled_config
from orpo_ray.phases.attempt import Attempt, begin_attempt
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.evaluator_actor import begin, running_evaluator
from orpo_ray.phases.growth import Growth
from orpo_ray.phases.keys import result_of
from orpo_ray.phases.leftovers import place_given_back
from orpo_ray.phases.metrics_tail import MetricsTail, read_metrics
from orpo_ray.phases.phase import Phase
from orpo_ray.phases.places import Places, ask_ray, find_places
from orpo_ray.phases.retry import decide, last_line, whole
from orpo_ray.phases.student import student_directory
from orpo_ray.sampling.sampler import SamplerSpec
from orpo_ray.sampling.stream import ordered_ingest, pair_stream
from orpo_ray.tasks.split_of import split_of
from orpo_ray.training.checkpoint import newest_checkpoint
from orpo_ray.training.worker import DATASET, WorkerSpec, train_worker
from orpo_ray.weights import StalenessGate, Version
from orpo_ray.weights.board import WeightBoard, answered
from orpo_ray.weights.published import IncompleteVersionError, check_published
from orpo_ray.weights.shm import sweep

log = logging.getLogger(__name__)

# Carried by Train from the driver to its controller.
_ANSWER_S = 10.0
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


class Distill(Phase):
    """The phase."""

    name = "DISTILL"

    def key(self, context: RunContext) -> str:
        """Changes with every option that matters, and with the pairs."""
        return fingerprint(what_matters(context.config), result_of(context, "SEED"))

    def run(self, context: RunContext) -> dict[str, Any]:
        """Train to the end of the last epoch, through faults, from wherever an earlier start stopped."""
        geometry = context.config.geometry(len(PairSource(context.layout.pairs)))
        phi = PhiRule.of(context.config, geometry, initial_diversity(context))
        student = str(student_directory(context.config))
        initial = Version(0, student, step=0, epoch=0, phi=phi.phis() if phi.adaptive else ())
        gate = StalenessGate(geometry, context.config.policy.max_staleness)
        # Where it dies Ray starts an empty one in its place. It refuses calls of the attempt that it knows nothing of,
        # which ends that attempt; the next one fills it from the storage.
        board: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(WeightBoard).remote(initial, gate)
        begin(context, "following", running_evaluator(context).follow.remote(board))
        try:
            with MetricsTail(context, geometry):
                self._train(context, geometry, initial, board)
        finally:
            sweep(context.layout.weights)  # what a killed train worker of this node left in its memory
        answered(board.finish.remote(), context.config.limits.start_s)
        return _summary(context, geometry)

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """Whether the last checkpoint is on the storage, and the student that it ends with."""
        checkpoint = newest_checkpoint(context.layout.checkpoints)
        return checkpoint is not None and checkpoint.step == result["steps"] and _is_whole(checkpoint.version_path)

    def _train(self, context: RunContext, geometry: Geometry, initial: Version, board: Any) -> None:
        failures = 0
        while True:
            try:
                attempt = begin_attempt(context.layout, geometry, initial, board, context.config.limits.start_s)
                for reason in attempt.passed_over:
                    context.say("note", text=reason)
                if attempt.start.step >= geometry.steps:
                    return
                if attempt.start.step:
                    context.say("note", text=f"going on from step {attempt.start.step} of {geometry.steps}")
                if left := self._attempt(context, geometry, attempt, initial, board):
                    context.say("distill.left", attempt=attempt.start.number, why=left)
                    continue
                # No sampler has loaded the last version.
                check_published(Path(newest_weights(context)))
                return
            except Exception as error:
                failures += 1
                decision = decide(error, failures, context.config.limits.failures)
                if not decision.retry:
                    raise decision.error from error
                context.say("fault", error=whole(error), actors=_situation(board))
                context.say("note", text=decision.reason)

    def _attempt(
        self, context: RunContext, geometry: Geometry, attempt: Attempt, initial: Version, board: Any
    ) -> str | None:
        """Train with as many workers and samplers as have a place now; why it ended early, None where it did not."""
        places = find_places(context.config, ask_ray)
        _say_places(context, attempt.start.number, places)
        config, layout = settled_config(context).sized(places.workers, places.samplers), context.layout
        geometry = replace(geometry, ranks=places.workers)
        sampler = SamplerSpec(
            config=config,
            task=split_of(config.task, "train", config.seed),
            attempt=attempt.start.number,
            initial=initial.path,
            pairs=layout.pairs,
            journal=layout.journal,
        )
        phi = PhiRule.of(config, geometry, initial_diversity(context))
        worker = WorkerSpec(config, layout, geometry, attempt.start, attempt.current, initial.path, phi)
        cpus, gpus = config.resources.trainer_cpus, config.resources.trainer_gpus
        resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
        # Left to itself Train gives a worker group a minute to find its place, and tries again for ever.
        os.environ[_START_TIMEOUT] = str(config.limits.start_s)
        trainer = TorchTrainer(
            train_worker,  # type: ignore[arg-type]  # v1's returned nothing; v2 keeps what rank 0 returns
            train_loop_config={"spec": worker, "board": board},
            torch_config=TorchConfig(timeout_s=int(config.limits.collective_s)),
            datasets={DATASET: pair_stream(sampler, board, geometry, attempt.start.step * geometry.global_batch)},
            dataset_config=ordered_ingest(),
            # Statically the name is Train v1's, which knows no labels; at run time it is v2's.
            scaling_config=ScalingConfig(  # type: ignore[call-arg]
                num_workers=geometry.ranks,
                use_gpu=gpus > 0,
                resources_per_worker=resources,
                placement_strategy=config.resources.trainer_strategy,
                label_selector=config.resources.node_labels("trainer") or None,
            ),
            run_config=RunConfig(
                name=f"attempt-{attempt.start.number:03d}",
                storage_path=str((layout.run / "train").resolve()),
                # Which faults are worth another attempt is decided here, by their cause.
                failure_config=FailureConfig(
                    max_failures=0,
                    controller_failure_limit=0,  # type: ignore[call-arg]
                    max_preemption_failures=0,
                ),
            ),
        )

        number = attempt.start.number

        def settled() -> bool:
            # The train workers come before the samplers, which they ask for rows.
            return int(answered(board.samplers.remote(number), _ANSWER_S)) == places.samplers

        def found() -> None:
            board.end_attempt.remote(number, "there is a place for more workers or samplers")

        with (
            sigint_given_back(),
            place_given_back(geometry.ranks, resources),
            Growth(context.config, places, ask_ray, settled=settled, found=found),
        ):
            left: str | None = trainer.fit().return_value  # type: ignore[attr-defined]
        return left


def _situation(board: Any) -> str:
    """What each actor is at, for the events."""
    try:
        return str(answered(board.situation.remote(), _ANSWER_S))
    except (WaitTimeout, RayError) as error:
        return f"the weight board does not say ({last_line(error)})"


def _say_places(context: RunContext, attempt: int, places: Places) -> None:
    """Where some are missing, and where they are no more."""
    missing = not places.all_of(context.config)
    if missing or context.live.get("missing"):
        context.say(
            "distill.places",
            attempt=attempt,
            workers=places.workers,
            samplers=places.samplers,
            all_workers=context.config.train.workers,
            all_samplers=context.config.resources.samplers,
        )
    context.live["missing"] = missing


@contextmanager
def sigint_given_back() -> Iterator[None]:
    """Train answers SIGINT by aborting its worker group, and goes on doing so when there is none any more."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def initial_diversity(context: RunContext) -> Diversity:
    """Of the initial student's wrong traces, from SEED's counts."""
    seed = context.results["SEED"]
    if "negatives" not in seed:
        return Diversity()
    distinct, some = seed["negatives"], seed["prompts"] - seed["never_wrong"]
    return Diversity(distinct + seed["near_duplicates"] - some, distinct - some)


def _summary(context: RunContext, geometry: Geometry) -> dict[str, Any]:
    """What was trained on, from the metrics of the committed lineage."""
    lines = list(read_metrics(context.layout.metrics))
    policies: Counter[str] = Counter()
    staleness: Counter[str] = Counter()
    for line in lines:
        policies.update(line["by_policy"])
        staleness.update(line["staleness"])
    seconds = sum(line["seconds"] for line in lines)
    pairs = sum(int(line["pairs"]) for line in lines)
    losses = [line["loss"] for line in lines if "loss" in line]
    return {
        "steps": geometry.steps,
        "epochs": geometry.epochs,
        "rows": sum(line["rows"] for line in lines),
        "pairs": pairs,
        "sft_rows": policies["none"],
        "by_policy": dict(policies),
        "staleness": dict(staleness),
        "versions": geometry.version_at(geometry.steps),
        "attempts": max((line["attempt"] for line in lines), default=0),
        "pairs_per_s": round(pairs / seconds, 3) if seconds else 0.0,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "skipped_steps": sum(line["skipped"] for line in lines),
        "cut": sum(line["cut"] for line in lines),
        "weights": newest_weights(context),
    }


def _is_whole(version: str) -> bool:
    try:
        return bool(check_published(Path(version)))
    except IncompleteVersionError:
        return False


def newest_weights(context: RunContext) -> str:
    """Directory of the last published student."""
    checkpoint = newest_checkpoint(context.layout.checkpoints)
    assert checkpoint is not None
    return str(Path(checkpoint.version_path))
