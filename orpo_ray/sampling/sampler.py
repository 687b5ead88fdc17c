"""The live sampler: a Ray Data actor that turns plan rows into pair groups, one row out for each row in.

Several blocks are in flight on one engine; each waits at the gate, takes the newest weights, samples its live rows,
judges them, and writes its groups to the journal before anybody trains on them.
"""

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from orpo_ray.config import RunConfig
from orpo_ray.engine.live import LiveEngine
from orpo_ray.engine.student import end_with_dead_engine, start_student
from orpo_ray.engine.vllm_engine import Draw
from orpo_ray.errors import OrpoRayError, WaitTimeout
from orpo_ray.pairs import (
    LiveCounts,
    PairGroup,
    PairSource,
    PhiRule,
    Plan,
    PlanRow,
    SourcePrompt,
    build_group,
    match,
    to_table,
)
from orpo_ray.sampling.journal import Journal
from orpo_ray.sampling.judging import Judged, judge_traces, record_traces
from orpo_ray.tasks import Row, Task
from orpo_ray.traces.selection import Choice
from orpo_ray.tracking.meter import record, timed
from orpo_ray.tracking.told import tell
from orpo_ray.weights import Version
from orpo_ray.weights.loading import load_version

# The board itself says after limits.gate_s what was waited for; this much later it is taken for lost.
_BOARD_S = 60.0
_ALIVE_S = 2.0


@dataclass(frozen=True)
class SamplerSpec:
    """Everything that a sampler is built from; it travels to the actor by pickle.

    Attributes:
        attempt: the start of the worker group that it samples for.
        initial: directory of the initial student.
        pairs: directory of the pair source.
    """

    config: RunConfig
    task: Task
    attempt: int
    initial: str
    pairs: Path
    journal: Path


class Sampler:
    """The callable class of `Dataset.map_batches`; Ray Data calls it with one block of row indices at a time."""

    def __init__(self, spec: SamplerSpec, board: Any) -> None:
        self._spec = spec
        self._board = board
        self._source = PairSource(spec.pairs)
        self._geometry = spec.config.geometry(len(self._source))
        phi = PhiRule.of(spec.config, self._geometry).phis()
        self._plan = Plan(spec.config.seed, phi, self._geometry, self._source.prompt_id)
        self._instead = "teacher" if spec.config.negatives_source == "teacher" else "initial"
        self._journal = Journal(spec.journal, self._geometry.global_batch)
        actor = f"sampler-{(ray.get_runtime_context().get_actor_id() or os.urandom(4).hex())[:8]}"
        self._reader = f"{actor}.{os.urandom(2).hex()}"  # Ray restarts a killed actor under its old id
        self._board.enter.remote(actor, self._reader)
        # Whatever the sampler is at. It ends with the process.
        threading.Thread(target=self._say_alive, daemon=True, name="alive").start()
        self._starting = asyncio.Lock()
        self._live: LiveEngine | None = None

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """One block in, its pair groups out, in order."""
        indices = batch.column("id").to_pylist()
        try:
            yield await self._block(indices)
        except OrpoRayError:
            raise
        except Exception:
            end_with_dead_engine(self._live.engine if self._live is not None else None)
            raise

    async def _block(self, indices: list[int]) -> pa.Table:
        found = await asyncio.to_thread(self._journal.find, indices[0], len(indices))
        if found is not None:
            return found
        # Rows with the initial student's negatives need no weights, but keep their place in the order.
        began = time.monotonic()
        with timed("orpo_sampler_gate_seconds"):
            version = await self._admit(indices[-1])
        waited = time.monotonic() - began
        plan = replace(self._plan, phi=version.phi) if version.phi else self._plan
        rows = [plan.row(index) for index in indices]
        try:
            sampled, number = await self._sample([row for row in rows if row.policy == "live"], version)
        finally:
            await self._board.release.remote(self._reader, version.path)
        table = await asyncio.to_thread(self._groups, rows, sampled, number)
        await asyncio.to_thread(self._journal.append, indices[0], table, number)
        seconds = time.monotonic() - began
        record("orpo_sampler_block_seconds", seconds)
        tell(
            "sampler.block", phase="distill", row=indices[0], rows=len(indices), epoch=rows[0].epoch, version=number,
            attempt=self._spec.attempt, prompt_ids=[row.prompt_id for row in rows], seconds=round(seconds, 3),
            waited=round(waited, 3),
            tokens=sum(len(one.completion.token_ids) for judged in sampled.values() for one in judged),
        )  # fmt: skip
        return table

    def _say_alive(self) -> None:
        while True:
            self._board.alive.remote(self._reader)
            time.sleep(_ALIVE_S)

    async def _admit(self, last_row: int) -> Version:
        limit = self._spec.config.limits.gate_s
        try:
            async with asyncio.timeout(limit + _BOARD_S):
                version: Version = await self._board.admit.remote(self._spec.attempt, self._reader, last_row, limit)
                return version
        except TimeoutError:
            raise WaitTimeout(
                f"limits.gate_s: the weight board did not answer {self._reader} within {limit + _BOARD_S:g} s"
            ) from None

    async def _sample(self, rows: list[PlanRow], version: Version) -> tuple[dict[int, list[Judged]], int]:
        """Judged traces by row index, and the version that sampled them."""
        if not rows:
            return {}, version.number
        config = self._spec.config
        live = await self._engine()
        prompts = [self._source[row.position] for row in rows]
        draws = [
            Draw(
                k=config.sampling.k,
                temperature=config.sampling.temperature,
                top_p=config.sampling.top_p,
                max_tokens=config.sampling.max_tokens,
                seed=row.seed,
                logp=True,
            )
            for row in rows
        ]
        load = partial(self._load, live, version)
        async with live.at(version.number, load) as number:
            try:
                async with asyncio.timeout(config.limits.generate_s):
                    completions = await live.engine.sample_all([prompt.prompt for prompt in prompts], draws)
            except TimeoutError:
                raise WaitTimeout(
                    f"limits.generate_s: {self._reader} did not finish rows {rows[0].index} to {rows[-1].index} with "
                    f"version {number} within {config.limits.generate_s:g} s"
                ) from None
        judged = await asyncio.to_thread(
            lambda: [
                judge_traces(self._spec.task, task_row(prompt), traces, config.negatives, config.sampling.rouge_l_max)
                for prompt, traces in zip(prompts, completions, strict=True)
            ]
        )
        every = [item for traces in judged for item in traces]
        tokens = sum(len(item.completion.token_ids) for item in every)
        record_traces((str(item.verdict) for item in every), tokens, phase="distill")
        return {row.index: traces for row, traces in zip(rows, judged, strict=True)}, number

    def _groups(self, rows: list[PlanRow], sampled: dict[int, list[Judged]], number: int) -> pa.Table:
        return to_table([self._group(row, sampled.get(row.index, []), number) for row in rows])

    def _group(self, row: PlanRow, judged: list[Judged], number: int) -> PairGroup:
        """Negatives fall back live → initial → none (DESIGN promise 1)."""
        prompt: SourcePrompt = self._source[row.position]
        negatives = [item.completion for item in judged if item.kept]
        if negatives:
            policy, version = "live", number
            tokens, logp = [item.token_ids for item in negatives], [item.logp for item in negatives]
        else:
            policy, version = (self._instead if prompt.negatives else "none"), 0
            tokens, logp = prompt.negatives, [float("nan")] * len(prompt.negatives)
        config = self._spec.config
        pairs = config.train.pairs_per_prompt
        return build_group(
            index=row.index,
            epoch=row.epoch,
            prompt_id=row.prompt_id,
            coin=row.policy,
            policy=policy,  # type: ignore[arg-type]
            version=version,
            real=row.real,
            prompt=prompt.prompt,
            positives=prompt.positives,
            negatives=tokens,
            negatives_logp=logp,
            matched=match(len(prompt.positives), len(tokens), pairs, config.seed, row.epoch, row.prompt_id),
            live=LiveCounts(
                sampled=len(judged),
                tokens=sum(len(item.completion.token_ids) for item in judged),
                wrong=sum(item.choice is not Choice.UNFIT for item in judged),
                distinct=len(negatives),
            ),
        )

    async def _load(self, live: LiveEngine, version: Version) -> None:
        with timed("orpo_sampler_load_seconds"):
            await load_version(live.engine, version, self._spec.config.limits.reload_s)
        record("orpo_sampler_version", version.number)
        tell("sampler.loaded", phase="distill", version=version.number, step=version.step, attempt=self._spec.attempt)

    async def _engine(self) -> LiveEngine:
        """The engine, started by the first block that needs it: an off-policy run never pays for one."""
        async with self._starting:
            if self._live is None:
                engine = await start_student(self._spec.config, self._spec.initial)
                self._live = LiveEngine(engine, version=0)
                record("orpo_engine_starts_total", group="sampler")
            return self._live


def task_row(prompt: SourcePrompt) -> Row:
    """The task's row, as the pair source keeps it."""
    return Row(id=prompt.prompt_id, split="train", data=json.loads(prompt.row))
