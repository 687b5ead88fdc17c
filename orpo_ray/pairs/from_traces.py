"""The pair source's prompts from stored traces: which right traces are learned from, and which wrong ones are contrasted."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.config.method import NegativesConfig
from orpo_ray.errors import DataError
from orpo_ray.pairs.source import PairSource, SourcePrompt
from orpo_ray.tasks import Row, Task
from orpo_ray.tasks.prompts import encode_completion, render_prompt
from orpo_ray.traces.record import Trace
from orpo_ray.traces.selection import Choice, choose
from orpo_ray.traces.store import TraceStore


def with_positives(
    config: RunConfig, task: Task, store: TraceStore, tokenizer: Any, gold: list[str]
) -> Iterator[SourcePrompt]:
    """Every prompt that has a right trace to learn from, in the student's token ids.

    Args:
        gold: appended to are the prompts that learn from their row's own solution (positives.fallback).
    """
    room = config.student.engine.max_model_len - config.sampling.max_tokens
    for row, traces in _by_row(task, store):
        positives = [trace.text for trace in traces if trace.kept][: config.positives.per_prompt]
        if not positives and config.positives.fallback == "gold":
            solution = task.solution(row)
            positives = [solution] if solution is not None else []
            gold += [row.id] if positives else []
        if not positives:
            continue
        prompt = render_prompt(tokenizer, task.messages(row))
        if len(prompt) > room:
            raise DataError(
                f"task row {row.id}: its prompt has {len(prompt)} tokens, and student.engine.max_model_len "
                f"{config.student.engine.max_model_len} less sampling.max_tokens {config.sampling.max_tokens} leaves "
                f"{room}; raise the one or lower the other"
            )
        yield SourcePrompt(
            prompt_id=row.id,
            row=json.dumps(dict(row.data), ensure_ascii=False),
            prompt=prompt,
            positives=[encode_completion(tokenizer, text) for text in positives],
            negatives=[],
        )


def _by_row(task: Task, store: TraceStore) -> Iterator[tuple[Row, list[Trace]]]:
    """Each row of the task with its traces, which the store holds in the same order; some may have none."""
    stored = store.prompts()
    upcoming = next(stored, None)
    for row in task.rows():
        traces: list[Trace] = []
        if upcoming is not None and upcoming[0] == row.id:
            traces = upcoming[1]
            upcoming = next(stored, None)
        yield row, traces
    if upcoming is not None:
        raise RuntimeError(f"{store.directory}: its prompts are not those of the task, in the task's order")


def without_student(
    config: RunConfig, task: Task, store: TraceStore, tokenizer: Any, source: PairSource, found: dict[str, int]
) -> Iterator[SourcePrompt]:
    """The same prompts with the teacher's own wrong traces (the paper's ablation), chosen as a student's are, or with none.

    Args:
        found: counts what SEED's result says.
    """
    rows = _by_row(task, store)
    for at in range(len(source)):
        prompt = source[at]
        traces = next(traces for row, traces in rows if row.id == prompt.prompt_id)
        wanted = config.negatives_source == "teacher"
        fits = [wanted and _counts_as_wrong(trace, config.negatives) for trace in traces]
        choices = choose([trace.text for trace in traces], fits, config.sampling.rouge_l_max)
        kept = [trace for trace, choice in zip(traces, choices, strict=True) if choice is Choice.KEPT]
        found["negatives"] += len(kept)
        found["near_duplicates"] += choices.count(Choice.NEAR_DUPLICATE)
        found["never_wrong"] += not kept
        # A trace that was cut has no end.
        ids = [encode_completion(tokenizer, trace.text)[: -1 if trace.truncated else None] for trace in kept]
        yield replace(prompt, negatives=ids)


def _counts_as_wrong(trace: Trace, negatives: NegativesConfig) -> bool:
    if trace.verdict == "right":
        return False
    if trace.truncated:
        return negatives.truncated == "keep"
    return trace.verdict == "wrong" or negatives.unparsed == "keep"


def with_negatives(source: PairSource, store: TraceStore) -> Iterator[SourcePrompt]:
    """The same prompts with the initial student's negatives, which the store holds in the same order."""
    stored = store.prompts()
    upcoming = next(stored, None)
    for at in range(len(source)):
        prompt = source[at]
        negatives: list[list[int]] = []
        if upcoming is not None and upcoming[0] == prompt.prompt_id:
            negatives = [trace.token_ids for trace in upcoming[1] if trace.kept and trace.token_ids]
            upcoming = next(stored, None)
        yield SourcePrompt(prompt.prompt_id, prompt.row, prompt.prompt, prompt.positives, negatives)
    leftover = list(itertools.islice(stored, 1))
    if upcoming is not None or leftover:
        raise RuntimeError(f"{store.directory}: its prompts are not those of the pair source")
