"""The initial student's traces, sampled once for every prompt that has a right teacher trace (SEED)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from orpo_ray.config import RunConfig
from orpo_ray.engine.student import end_with_dead_engine, start_student
from orpo_ray.engine.vllm_engine import Completion, Draw, Engine
from orpo_ray.errors import OrpoRayError, WaitTimeout
from orpo_ray.pairs import PairSource, SourcePrompt
from orpo_ray.pairs.draw import draw
from orpo_ray.sampling.judging import judge_traces, record_traces
from orpo_ray.sampling.sampler import task_row
from orpo_ray.tasks import Task
from orpo_ray.traces.record import Trace
from orpo_ray.traces.selection import Choice
from orpo_ray.traces.store import TraceDraft
from orpo_ray.tracking.meter import record

BLOCK_PROMPTS = 32
"""Prompts of one part of the trace store: sampled side by side, and lost together where a kill strikes."""


@dataclass(frozen=True)
class InitialSpec:
    """What an initial sampler is built from.

    Attributes:
        initial: directory of the initial student; `model` is its fingerprint.
        prompts: directory of the pair source with the prompts to sample (its negatives are still empty).
        store: where the traces will lie.
    """

    config: RunConfig
    task: Task
    initial: str
    model: str
    prompts: Path
    store: Path


class InitialSampler:
    """A Ray Data actor: block numbers in, one row of counts a block out; the traces go to the store."""

    def __init__(self, spec: InitialSpec) -> None:
        self._spec = spec
        self._source = PairSource(spec.prompts)
        self._draft = TraceDraft(spec.store)
        self._starting = asyncio.Lock()
        self._engine: Engine | None = None

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        for block in batch.column("item").to_pylist():
            try:
                prompts, traces = await self._block(block)
            except OrpoRayError:
                raise
            except Exception:
                end_with_dead_engine(self._engine)
                raise
            yield pa.table({"block": [block], "prompts": [prompts], "traces": [traces]})

    async def _block(self, block: int) -> tuple[int, int]:
        first = block * BLOCK_PROMPTS
        prompts = [self._source[at] for at in range(first, min(first + BLOCK_PROMPTS, len(self._source)))]
        engine = await self._started()
        sampling = self._spec.config.sampling
        seeds = [initial_seed(self._spec.config.seed, prompt.prompt_id) for prompt in prompts]
        draws = [
            Draw(sampling.k, sampling.temperature, sampling.max_tokens, seed=seed, top_p=sampling.top_p)
            for seed in seeds
        ]
        limit = self._spec.config.limits.generate_s
        try:
            async with asyncio.timeout(limit):
                completions = await engine.sample_all([prompt.prompt for prompt in prompts], draws)
        except TimeoutError:
            raise WaitTimeout(
                f"limits.generate_s: the initial student's traces of prompts {first} to {first + len(prompts) - 1} were "
                f"not sampled within {limit:g} s"
            ) from None
        traces = await asyncio.to_thread(
            lambda: [
                trace
                for prompt, seed, drawn in zip(prompts, seeds, completions, strict=True)
                for trace in self._judged(prompt, seed, drawn)
            ]
        )
        await asyncio.to_thread(self._draft.write, block, traces, len(prompts))
        tokens = sum(len(trace.token_ids or ()) for trace in traces)
        record_traces((trace.verdict for trace in traces), tokens, phase="seed")
        return len(prompts), len(traces)

    def _judged(self, prompt: SourcePrompt, seed: int, drawn: list[Completion]) -> list[Trace]:
        config = self._spec.config
        judged = judge_traces(self._spec.task, task_row(prompt), drawn, config.negatives, config.sampling.rouge_l_max)
        return [
            Trace(
                prompt_id=prompt.prompt_id,
                sample=place,
                text=item.completion.text,
                token_ids=item.completion.token_ids,
                verdict=str(item.verdict),
                truncated=item.completion.truncated,
                kept=item.kept,
                near_duplicate=item.choice is Choice.NEAR_DUPLICATE,
                source="student",
                model=self._spec.model,
                seed=seed,
                temperature=config.sampling.temperature,
            )
            for place, item in enumerate(judged)
        ]

    async def _started(self) -> Engine:
        async with self._starting:
            if self._engine is None:
                self._engine = await start_student(self._spec.config, self._spec.initial)
                record("orpo_engine_starts_total", phase="seed", group="sampler")
            return self._engine


def initial_seed(seed: int, prompt_id: str) -> int:
    """Seeds the initial student's traces of a prompt: 31 bits, as vLLM takes them."""
    return draw(seed, "initial", prompt_id) >> 33
