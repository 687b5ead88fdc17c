"""TEACH with several teachers: each is asked for its part of the K traces, and what they say is thinned together.

Each teacher's traces lie in a store of their own, under a key of their own, so that another weight or a third teacher asks
nobody again who is asked for as many as before. The merged store is what the later phases read.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.phase import Phase
from orpo_ray.phases.teach import Teach, check_some_right
from orpo_ray.tasks import Task
from orpo_ray.tasks.split_of import split_of
from orpo_ray.teacher.caller import BLOCK_PROMPTS
from orpo_ray.traces.record import Trace
from orpo_ray.traces.selection import Choice, choose
from orpo_ray.traces.store import TraceDraft, TraceStore


class TeachAll(Phase):
    """The phase, for one teacher or several."""

    name = "TEACH"

    def __init__(self, teach: Teach | None = None) -> None:
        self._teach = teach or Teach()

    def key(self, context: RunContext) -> str:
        """One teacher's own; of several it changes with any of them, and with how K is shared out."""
        return _together([self._teach.key(one) for one in _each(context)])

    def pairs_key(self, context: RunContext) -> str:
        """As `Teach.pairs_key`."""
        return _together([self._teach.pairs_key(one) for one in _each(context)])

    def run(self, context: RunContext) -> dict[str, Any]:
        """As `Teach.run`; of several teachers also `teachers`: for each its k, its counts and its share of positives.

        Raises:
            As `Teach.run`, but that one teacher alone may never be right.
        """
        each = _each(context)
        if len(each) == 1:
            return self._teach.run(each[0])
        results = []
        for one in each:
            teacher = one.config.teacher
            context.say("note", text=f"{one.config.sampling.k} traces a prompt by {_who(one)}")
            results.append(self._teach.run(one, must_be_right=False) | {"teacher": _who(one), "weight": teacher.weight})
        store = self._merged(context, results)
        if context.config.positives.fallback == "none":
            check_some_right(store)
        kept = _kept_by_teacher(store, len(each))
        return {
            "key": store.manifest["key"],
            "path": str(store.directory),
            **store.counts.to_json(),
            "test": results[0]["test"],
            "teachers": [
                {
                    "teacher": result["teacher"],
                    "k": one.config.sampling.k,
                    "weight": result["weight"],
                    "traces": result["traces"],
                    "right": result["right"],
                    "positives": kept[place],
                    "share_of_positives": kept[place] / max(1, sum(kept)),
                    "test": result["test"],
                    "path": result["path"],
                }
                for place, (one, result) in enumerate(zip(each, results, strict=True))
            ],
        }

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """Whether the traces are on the storage."""
        return self._teach.still_there(context, result)

    def _merged(self, context: RunContext, results: Sequence[dict[str, Any]]) -> TraceStore:
        config = context.config
        made_from = {
            "teachers": [result["key"] for result in results],
            "rouge_l_max": config.sampling.rouge_l_max,
        }
        key = fingerprint(made_from)
        draft = TraceDraft(context.layout.traces("teacher", key))
        found = TraceStore.find(draft.directory, key)
        if found is not None:
            return found
        stores = [TraceStore.find(Path(result["path"]), result["key"]) for result in results]
        whole = [store for store in stores if store is not None]
        assert len(whole) == len(stores), "each was found or made just now"
        task = split_of(config.task, "train", config.seed)
        merged = merge(task, whole, config.sampling.rouge_l_max)
        blocks = 0
        while prompts := list(islice(merged, BLOCK_PROMPTS)):
            draft.write(blocks, [trace for traces in prompts for trace in traces], len(prompts))
            blocks += 1
        return draft.finish(blocks, key, made_from)


def merge(task: Task, stores: Sequence[TraceStore], rouge_l_max: float) -> Iterator[list[Trace]]:
    """Each row's traces of all teachers, thinned together; an empty list for a row that nobody answered.

    Their first traces come first, then their second ones, so that no teacher's are dropped only for coming later. A trace's
    number says whose it is: sample = number of its teacher + count of teachers × its own sample.
    """
    readers = [store.prompts() for store in stores]
    upcoming = [next(reader, None) for reader in readers]
    for row in task.rows():
        traces = []
        for place, reader in enumerate(readers):
            at = upcoming[place]
            if at is not None and at[0] == row.id:
                traces += [dataclasses.replace(trace, sample=place + len(stores) * trace.sample) for trace in at[1]]
                upcoming[place] = next(reader, None)
        traces.sort(key=lambda trace: trace.sample)
        fits = [trace.kept or trace.near_duplicate for trace in traces]
        choices = choose([trace.text for trace in traces], fits, rouge_l_max)
        yield [
            dataclasses.replace(trace, kept=choice is Choice.KEPT, near_duplicate=choice is Choice.NEAR_DUPLICATE)
            for trace, choice in zip(traces, choices, strict=True)
        ]


def _together(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else fingerprint(keys)


def _kept_by_teacher(store: TraceStore, teachers: int) -> list[int]:
    """Positives of each teacher in a merged store."""
    kept = [0] * teachers
    for _, traces in store.prompts():
        for trace in traces:
            kept[trace.sample % teachers] += trace.kept
    return kept


def _each(context: RunContext) -> list[RunContext]:
    return [dataclasses.replace(context, config=config) for config in context.config.of_teachers()]


def _who(context: RunContext) -> str:
    teacher = context.config.teacher
    return teacher.model or teacher.path or teacher.backend
