"""The Ray Train loop: one rank of the DeepSpeed group that trains on the stream.

It reads from top to bottom as a step goes: rows from the stream, shared by tokens, loss and gradients, ledger, publish,
checkpoint.
"""

import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.collective
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from orpo_ray.config import Geometry, RunConfig
from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import CollectiveTimeout
from orpo_ray.pairs import PairGroup, PairSource, PhiRule, from_table
from orpo_ray.tracking.meter import timed
from orpo_ray.tracking.told import tell
from orpo_ray.training import deepspeed_engine
from orpo_ray.training.batching import FILLER, TokenGroup, Truncation, truncate
from orpo_ray.training.checkpoint import load_checkpoint, prune_checkpoints, save_checkpoint, world_size
from orpo_ray.training.deepspeed_engine import StepResult, not_finite_error
from orpo_ray.training.ledger import LedgerWriter
from orpo_ray.training.metrics import MetricsWriter, StepCounts, live_diversity
from orpo_ray.training.model import OrpoModel
from orpo_ray.training.publish import gather_student, probe_fact, write_probed
from orpo_ray.training.sharing import share_batch
from orpo_ray.weights import StalenessGate, Version
from orpo_ray.weights.board import AttemptStart, answered
from orpo_ray.weights.probe import FACT as PROBE
from orpo_ray.weights.published import remove_versions, version_directory
from orpo_ray.weights.transport import transport_of

log = logging.getLogger(__name__)

DATASET = "pair_groups"
# A rank that waits longer for rows asks whether they may still come.
_LOOK_S = 5.0


@dataclass(frozen=True)
class WorkerSpec:
    """What every rank is given.

    Attributes:
        start: the attempt, and the checkpoint that it begins from.
        current: the newest published version at that checkpoint.
        initial: directory of the initial student.
        phi: what determines φ.
    """

    config: RunConfig
    layout: RunLayout
    geometry: Geometry
    start: AttemptStart
    current: Version
    initial: str
    phi: PhiRule


def train_worker(loop_config: dict[str, Any]) -> str | None:
    """`train_loop_per_worker` of the TorchTrainer: `spec` is a WorkerSpec, `board` the WeightBoard's handle.

    Returns:
        Why the group ended at a checkpoint before the end of the stream; None where it came to its end.
    """
    spec: WorkerSpec = loop_config["spec"]
    torch.set_num_threads(spec.config.resources.threads)
    # The samplers' engines start when the first batch is asked for: beside the model's start, not after it.
    batches = Batches(spec, loop_config["board"])
    rank = Rank(spec, loop_config["board"])
    batch = batches.take()
    with rank.transport:
        while batch is not None:
            with timed("orpo_train_step_seconds", rank=str(rank.rank)):
                with rank.in_collectives():
                    rank.step(from_table(batch))
                if rank.leaving is not None:
                    break
                with timed("orpo_train_wait_seconds", rank=str(rank.rank)):
                    batches.ask()
                    batch = batches.take()
    rank.close()
    return rank.leaving


class Batches:
    """This rank's part of each global batch, from a thread of its own, so that a wait for rows can be ended."""

    def __init__(self, spec: WorkerSpec, board: Any) -> None:
        self._spec, self._board = spec, board
        self._batches = _batches(spec.geometry)
        self._thread = ThreadPoolExecutor(1)
        self.ask()

    def ask(self) -> None:
        """Begin to fetch the next batch."""
        self._asked = self._thread.submit(next, self._batches, None)

    def take(self) -> Any:
        """Wait for it; None at the end of the stream.

        Raises:
            SamplerLostError: a sampler is gone with rows of its own, and no other brings them.
            WaitTimeout: no sampler does anything any more.
        """
        limits = self._spec.config.limits
        still_s = limits.start_s + limits.reload_s + limits.generate_s
        while not wait([self._asked], timeout=_LOOK_S).done:
            # The other ranks end with this one.
            call = self._board.check_rows.remote(self._spec.start.number, limits.place_s, still_s)
            answered(call, limits.start_s)
        return self._asked.result()


def _batches(geometry: Geometry) -> Iterator[Any]:
    shard = ray.train.get_dataset_shard(DATASET)
    # Every row prefetched would have to be admitted by the gate a batch earlier (FACTS: prefetching hangs).
    yield from shard.iter_batches(
        batch_size=geometry.local_rows, batch_format="pyarrow", prefetch_batches=0, drop_last=True
    )


def collective_timeout(error: RuntimeError, rank: int, limit_s: float, where: str) -> CollectiveTimeout | None:
    """What PyTorch means, which says of a collective that took too long neither whose it was nor what for."""
    if not re.search("timed out|timeout", str(error), re.IGNORECASE):
        return None
    said = str(error).strip().splitlines()[-1]
    return CollectiveTimeout(
        f"limits.collective_s: rank {rank} waited {limit_s:g} s for the other ranks {where} ({said})"
    )


class Rank:
    """One worker: its DeepSpeed engine, and where it is in the stream."""

    def __init__(self, spec: WorkerSpec, board: Any) -> None:
        self._spec, self._board = spec, board
        self._config, self._geometry = spec.config, spec.geometry
        self._gate = StalenessGate(spec.geometry, spec.config.policy.max_staleness)
        self._step = spec.start.step
        self._version = spec.current
        self._doing = "its start"
        self.leaving: str | None = None
        self.rank = ray.train.get_context().get_world_rank()
        self._device = get_device()
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=spec.config.limits.collective_s), dist.group.WORLD)
        torch.manual_seed(spec.config.seed)
        checkpoint = Path(spec.start.checkpoint) if spec.start.checkpoint is not None else None
        resharded = checkpoint is not None and world_size(checkpoint) != spec.geometry.ranks
        self._engine = deepspeed_engine.start(spec.config, spec.initial, load_universal=resharded)
        if checkpoint is not None:
            load_checkpoint(self._engine, checkpoint, rank=self.rank, resharded=resharded, barrier=dist.barrier)
        self._ledger = LedgerWriter(spec.layout.ledger, spec.start.number, self.rank)
        self._metrics = MetricsWriter(spec.layout) if self.rank == 0 else None
        self._phi = self._phis(spec.start.step // spec.geometry.steps_per_epoch)
        # Rank 0 alone publishes; on the others' nodes it would sweep for nothing.
        name = spec.config.storage.transport if self.rank == 0 else "filesystem"
        host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self.transport = transport_of(name, spec.layout.weights, host, spec.config.limits.reload_s)
        self._clock = time.monotonic()

    @property
    def _model(self) -> OrpoModel:
        model: OrpoModel = self._engine.module
        return model

    @contextmanager
    def in_collectives(self) -> Iterator[None]:
        """Raises CollectiveTimeout where the other ranks were waited for beyond `limits.collective_s`."""
        try:
            yield
        except RuntimeError as error:
            where = f"after {self._step} steps, in {self._doing}"
            found = collective_timeout(error, self.rank, self._config.limits.collective_s, where)
            if found is None:
                raise
            raise found from error

    def step(self, groups: list[PairGroup]) -> None:
        """One optimizer step, and what follows from it.

        Args:
            groups: the rows of the global batch that the stream gave this rank.
        """
        began = time.monotonic()
        step, geometry, train = self._step, self._geometry, self._config.train
        self._doing = "the exchange of rows"
        rows = self._rows_of_all_ranks(groups)
        tokens, cut = self._tokens(rows)
        shares = share_batch(tokens, geometry.ranks, train.token_budget, train.micro_batch)
        own = shares[self.rank]
        learning_rate = deepspeed_engine.set_learning_rate(self._engine, train, step, geometry.steps)
        lam = deepspeed_engine.set_lambda(self._engine, train, step, geometry.steps)
        self._doing = "the forward and backward pass"
        result = deepspeed_engine.train_step(self._engine, own.micro_batches, geometry.real_rows(step), self._device)
        self._step = step = step + 1
        if not result.applied:
            self._not_finite(step, result, tokens)
        self._ledger.append(step, [rows[index] for index in own.rows], skipped=not result.applied)
        counts = StepCounts.of(rows, self._gate)
        if self._metrics is not None:
            now = time.monotonic()
            self._metrics.append(
                step=step,
                epoch=rows[0].epoch,
                attempt=self._spec.start.number,
                version=self._version.number,
                learning_rate=learning_rate,
                lam=lam,
                phi=self._phi[rows[0].epoch - 1],
                seconds=now - self._clock,
                result=result,
                shares=shares,
                cut=cut,
                counts=counts,
            )
            self._clock = now
        seconds = round(time.monotonic() - began, 4)
        tell("train.step", phase="distill", step=step, rank=self.rank, tokens=own.tokens, seconds=seconds)
        if step % geometry.steps_per_epoch == 0:
            self._phi = self._phis(step // geometry.steps_per_epoch)
        self._doing = "the publication of a version"
        if geometry.version_at(step) > self._version.number:
            self._publish()
        self._doing = "a checkpoint"
        # The same on every rank, and soon enough before the node goes, where a step and a checkpoint are.
        preempted = ray.train.get_preemption_info() is not None
        if preempted or step % train.checkpoint_every == 0 or step % geometry.steps_per_epoch == 0:
            self._checkpoint()
            self.leaving = "a node of its train workers is about to go" if preempted else self._asked_to_leave()

    def close(self) -> None:
        """The stream has ended."""
        self._ledger.close()
        if self._metrics is not None:
            self._metrics.close()
        if self._step != self._geometry.steps and self.leaving is None:
            raise RuntimeError(f"the stream ended at step {self._step} of {self._geometry.steps}")

    def _rows_of_all_ranks(self, groups: list[PairGroup]) -> list[PairGroup]:
        """The global batch in the order of the stream, whoever received which row."""
        if self._geometry.ranks == 1:
            return groups
        # Pickled: a padded tensor of 64 rows with 8 pairs took 19 ms, this 24 ms, the same rows in Arrow 110 ms.
        parts: list[list[PairGroup]] = [[]] * self._geometry.ranks
        dist.all_gather_object(parts, groups)
        return sorted((group for part in parts for group in part), key=lambda group: group.index)

    def _tokens(self, rows: list[PairGroup]) -> tuple[list[TokenGroup], Truncation]:
        """The trainer's view of the rows, and what was cut to student.max_length."""
        tokens, cut = [], Truncation()
        for row in rows:
            if not row.real:
                tokens.append(FILLER)
                continue
            fitted, truncation = truncate(TokenGroup.from_pair_group(row), self._config.student.max_length)
            tokens.append(fitted)
            cut += truncation
        return tokens, cut

    def _phis(self, epochs: int) -> tuple[float, ...]:
        """φ of the epochs from the first on, once `epochs` of them are trained; only rank 0, which publishes it, asks."""
        rule = self._spec.phi
        if not rule.adaptive or self.rank != 0:
            return rule.phis()
        return rule.phis(live_diversity(self._spec.layout.metrics, epochs))

    def _not_finite(self, step: int, result: StepResult, tokens: list[TokenGroup]) -> None:
        """Raises NonFiniteLossError on every rank, unless train.non_finite is `skip`."""
        error = not_finite_error(step, result.not_finite, [group.name for group in tokens if group.weight > 0])
        if self._config.train.non_finite == "stop":
            raise error
        if self.rank == 0:
            log.warning("%s; skipped (train.non_finite)", error)

    def _publish(self) -> None:
        """The student as it is now becomes the next version, and the samplers are told."""
        spec, number = self._spec, self._version.number + 1
        train = self._config.train
        published = gather_student(
            self._model.student,
            partitioned=train.zero_stage == 3,
            rank=self.rank,
            precision=train.precision,
            adapter_only=train.lora is not None and train.lora.publish == "adapter",
        )
        if self.rank != 0:
            self._probe()  # with rank 0's, which writes meanwhile
        directory = version_directory(spec.layout.weights, number, spec.start.number)
        epoch, rest = divmod(self._step, self._geometry.steps_per_epoch)
        phi = self._phi if spec.phi.adaptive else ()
        self._version = Version(number, str(directory), self._step, epoch if rest == 0 else None, phi=phi)
        if self.rank == 0:
            facts: dict[str, Any] = {
                "number": number,
                "step": self._step,
                "epoch": self._version.epoch,
                "attempt": spec.start.number,
            }
            facts |= {"phi": list(phi)} if phi else {}

            def write(path: Path) -> None:
                # Before the manifest is written, which is the last of a version's files.
                facts[PROBE] = write_probed(published, path, Path(spec.initial), self._probe)

            copy = self.transport.publish(directory, write, facts, published.nbytes)
            version = replace(self._version, copy=copy)
            removable = self._answered(self._board.publish.remote(spec.start.number, version))
            remove_versions(removable)
            tell("train.published", phase="distill", version=number, step=self._step, attempt=spec.start.number)

    def _probe(self) -> dict[str, Any]:
        """What engines that load this student are checked by: the first prompt, with its first right trace."""
        config, first = self._config, PairSource(self._spec.layout.pairs)[0]
        # The engine samples one token behind it, and has room for sampling.max_tokens.
        length = max(1, config.sampling.max_tokens - 1)
        dtype = {"fp32": "float32", "bf16": "bfloat16"}[config.train.precision]
        return probe_fact(self._engine, first.prompt, first.positives[0][:length], dtype)

    def _answered(self, call: Any) -> Any:
        return answered(call, self._config.limits.start_s)

    def _asked_to_leave(self) -> str | None:
        """Why a new group is to go on from this checkpoint; None, and so on every rank, where none is."""
        asked = self._answered(self._board.ending.remote(self._spec.start.number)) if self.rank == 0 else None
        why: str | None = ray.train.collective.broadcast_from_rank_zero(asked)
        return why

    def _checkpoint(self) -> None:
        self._ledger.sync()
        self.transport.settle()
        checkpoints = self._spec.layout.checkpoints
        facts = {
            "step": self._step,
            "version": self._version.number,
            "version_path": self._version.path,
            "version_step": self._version.step,
            "world_size": self._geometry.ranks,
        }
        directory = checkpoints / f"step-{self._step:06d}"
        save_checkpoint(self._engine, directory, facts, rank=self.rank, barrier=dist.barrier)
        if self.rank == 0:
            pinned = prune_checkpoints(checkpoints, self._config.train.checkpoints_kept)
            self._answered(self._board.pin.remote(self._spec.start.number, pinned))
            tell("train.checkpoint", phase="distill", step=self._step, attempt=self._spec.start.number)
        ray.train.report({"step": self._step})
