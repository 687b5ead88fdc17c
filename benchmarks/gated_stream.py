"""A run's own stream read by threads in place of the worker group: whole local batches, steps in lockstep, publishing in turn.

Real are the gate, the board, Ray Data's execution and Train's split; the sampler is whichever is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from orpo_ray.config import Geometry
from orpo_ray.sampling.sampler import SamplerSpec
from orpo_ray.sampling.stream import ordered_ingest, pair_stream
from orpo_ray.weights import StalenessGate, Version
from orpo_ray.weights.board import AttemptStart, WeightBoard
from orpo_ray.weights.published import publish_directory

_PATIENCE_S = 600

Step = Callable[[int, int, pa.Table], None]
"""What a rank does with its rows of an optimizer step: rank, step (from 0), local_rows rows."""


def read_stream(
    spec: SamplerSpec,
    geometry: Geometry,
    sampler: type,
    step: Step,
    publish: Callable[[int, int], Version],
    most_steps: int | None = None,
) -> None:
    """Read the stream from its first row to its last, or for `most_steps` steps.

    Args:
        publish: makes version `number` after `step` optimizer steps; rank 0 calls it where the geometry says so.
    """
    steps = geometry.steps if most_steps is None else min(most_steps, geometry.steps)
    gate = StalenessGate(geometry, spec.config.policy.max_staleness)
    initial = Version(0, spec.initial, step=0, epoch=0)
    board: Any = ray.remote(num_cpus=0)(WeightBoard).remote(initial, gate)
    ray.get(board.start_attempt.remote(AttemptStart(spec.attempt, 0, None), initial, []))
    stream = pair_stream(spec, board, geometry, 0, sampler)
    # As Ray Train's DatasetManager does for get_dataset_shard.
    shards = ordered_ingest().configure({"pair_groups": stream}, geometry.ranks, None, None)
    barrier = threading.Barrier(geometry.ranks, timeout=_PATIENCE_S)

    def read(rank: int) -> None:
        """As the train worker reads: none prefetched."""
        batches = shards[rank]["pair_groups"].iter_batches(
            batch_size=geometry.local_rows, batch_format="pyarrow", prefetch_batches=0, drop_last=True
        )
        done = 0
        try:
            for batch in batches:
                step(rank, done, batch)
                done += 1
                barrier.wait()  # a step ends for all ranks together
                number = geometry.version_at(done)
                if rank == 0 and number > geometry.version_at(done - 1):
                    ray.get(board.publish.remote(spec.attempt, publish(number, done)))
                if done == steps:
                    break
        except BaseException:
            barrier.abort()
            raise
        if done != steps:
            raise RuntimeError(f"rank {rank}: the stream ended at step {done} of {steps}")

    with ThreadPoolExecutor(geometry.ranks) as pool:
        ranks = [pool.submit(read, rank) for rank in range(geometry.ranks)]
    errors = [error for rank in ranks if (error := rank.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error


def bare_version(directory: Path, number: int, step: int) -> Version:
    """A version without weights: a fake engine needs none."""
    path = directory / f"version-{number}"
    publish_directory(path, lambda _: None, {"number": number})
    return Version(number, str(path), step)
