"""The stream as Ray Train splits it, with two threads in place of the worker group: they read, and publish in turn."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from orpo_ray.config import Geometry, RunConfig
from orpo_ray.pairs import PairGroup, PhiRule, Plan, from_table
from orpo_ray.sampling.stream import ordered_ingest, pair_stream
from orpo_ray.weights import StalenessGate, Version
from orpo_ray.weights.board import AttemptStart, WeightBoard
from orpo_ray.weights.published import publish_directory
from tests.tiny.fake_engine import FakeEngineSampler, FakeEngineSpec, write_sums

_PATIENCE_S = 240


@dataclass(frozen=True)
class Trained:
    """A row as the trainer saw it.

    Attributes:
        step: the optimizer step it was part of, from 0.
        student: how often the student had been published when the row was trained on.
    """

    rank: int
    step: int
    student: int
    group: PairGroup

    @property
    def staleness(self) -> int:
        return self.student - self.group.version


class StreamRun:
    """One run's stream on fake engines; `train` plays the worker group on it."""

    def __init__(self, config: RunConfig, directory: Path, *, prompts: int, seconds: float = 0.0) -> None:
        self.directory, self.config = directory, config
        self.prompt_ids = write_sums(directory / "pairs", prompts)
        self.geometry: Geometry = config.geometry(prompts)
        self.plan = Plan(
            config.seed,
            PhiRule.of(config, self.geometry).phis(),
            self.geometry,
            lambda position: self.prompt_ids[position],
        )
        self.spec = FakeEngineSpec.below(directory, config, seconds)
        self.calls = self.spec.calls
        self.removable: list[str] = []

    def train(
        self,
        first_step: int = 0,
        *,
        step_seconds: float = 0.0,
        publishes: bool = True,
        stop: Callable[[int], bool] = lambda step: False,
    ) -> list[Trained]:
        """Read the stream from `first_step` on, publishing as the trainer does; rows in the order of steps and ranks.

        Args:
            stop: asked by each rank after a step, with the steps done; True ends its reading as a kill would.

        `removable` then holds the versions that the board gave out for deletion.
        """
        gate = StalenessGate(self.geometry, self.config.policy.max_staleness)
        board: Any = ray.remote(num_cpus=0)(WeightBoard).remote(Version(0, "initial", step=0, epoch=0), gate)
        number = self.geometry.version_at(first_step)
        current = self._published(number, first_step)
        ray.get(board.start_attempt.remote(AttemptStart(self.spec.attempt, first_step, None), current, []))
        stream = pair_stream(
            self.spec, board, self.geometry, first_step * self.geometry.global_batch, FakeEngineSampler
        )
        # As Ray Train's DatasetManager does for get_dataset_shard.
        shards = ordered_ingest().configure({"pair_groups": stream}, self.geometry.ranks, None, None)
        barrier = threading.Barrier(self.geometry.ranks, timeout=_PATIENCE_S)

        def play(rank: int) -> list[Trained]:
            """As the train worker reads: whole local batches, none prefetched."""
            seen, step = [], first_step
            batches = shards[rank]["pair_groups"].iter_batches(
                batch_size=self.geometry.local_rows, batch_format="pyarrow", prefetch_batches=0, drop_last=True
            )
            try:
                for batch in batches:
                    student = self.geometry.version_at(step)
                    seen += [Trained(rank, step, student, group) for group in from_table(batch)]
                    step += 1
                    time.sleep(step_seconds)
                    barrier.wait()  # a step ends for all ranks together
                    if publishes and rank == 0 and self.geometry.version_at(step) > student:
                        version = self._published(student + 1, step)
                        gone = ray.get(board.publish.remote(self.spec.attempt, version))
                        self.removable += [Path(path).name for path in gone]
                    if stop(step):
                        break
            except BaseException:
                barrier.abort()
                raise
            return seen

        with ThreadPoolExecutor(self.geometry.ranks) as pool:
            ranks = [pool.submit(play, rank) for rank in range(self.geometry.ranks)]
        for error in (rank.exception() for rank in ranks):
            if error is not None and not isinstance(error, threading.BrokenBarrierError):
                raise error
        return sorted((row for rank in ranks for row in rank.result()), key=lambda row: (row.step, row.rank))

    def _published(self, number: int, step: int) -> Version:
        """A version's directory, without weights: the fake engine needs none."""
        directory = self.directory / f"version-{number}"
        publish_directory(directory, lambda path: None, {"number": number})
        return Version(number, str(directory), step)
