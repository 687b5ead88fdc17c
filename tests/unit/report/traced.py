"""A run with traces, pairs and a journal: two prompts of the arithmetic task, the demo student's own tokenizer."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.pairs import build_group, to_table
from orpo_ray.pairs.group import Origin
from orpo_ray.sampling.journal import Journal
from orpo_ray.tasks import Row
from orpo_ray.tasks.prompts import encode_completion
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import TraceDraft
from tests.unit.report.finished import RESULTS, write_finished_run, write_state

STUDENT = Path(__file__).parents[3] / "orpo_ray" / "demo" / "models" / "student"


def config() -> RunConfig:
    return parse_config(
        {
            "name": "toy",
            "task": {"name": "arithmetic", "train_size": 2, "test_size": 2},
            "teacher": {"model": "models/teacher"},
            "student": {"model": str(STUDENT)},
            "train": {"global_batch": 2, "workers": 1, "micro_batch": 1, "epochs": 2},
            "resources": {"block_rows": 1},
        }
    )


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(STUDENT))


def rows() -> list[Row]:
    return list(split_of(config().task, "train", config().seed).rows())


def answers(row: Row) -> tuple[str, str, str]:
    """A right trace, the same in other words, and a wrong one."""
    gold = int(split_of(config().task, "train", config().seed).gold(row))
    return (
        f"So it is {gold}. The answer is {gold}.",
        f"Gains and losses give {gold} in all. The answer is {gold}.",
        f"So it is {gold + 1}. The answer is {gold + 1}.",
    )


def write_traced_run(storage: Path) -> RunLayout:
    """Teacher: two right traces a prompt, one of them dropped, and one wrong. Student: one wrong trace, one unparsed.

    Epoch 1, step 1: the first prompt with a live negative of version 0, the second with an initial one; then a row of
    weight 0. Epoch 2, step 2 is sampled and not trained yet: a live negative that the limit cut, of version 1.
    """
    layout = write_finished_run(storage)
    results = json.loads(json.dumps(RESULTS))
    for source, phase in (("teacher", "TEACH"), ("student", "SEED")):
        directory = layout.traces(source, "k")
        traces = [trace for row in rows() for trace in (_teacher(row) if source == "teacher" else _student(row))]
        draft = TraceDraft(directory)
        draft.write(0, traces, 2)
        draft.finish(1, "k", {})
        results[phase]["path"] = f"elsewhere/{directory.name}"
    record = json.loads(layout.state.read_text())
    for name, phase in record["phases"].items():
        phase["result"] = results[name]
    write_state(layout, config=config().model_dump(mode="json", by_alias=True), phases=record["phases"])
    _write_journal(layout)
    layout.metrics.write_text("".join(json.dumps(line) + "\n" for line in (METRICS,)))
    return layout


METRICS: dict[str, Any] = {
    "step": 1, "epoch": 1, "attempt": 1, "version": 0, "learning_rate": 1e-4, "grad_norm": 2.5, "seconds": 2.0,
    "pairs_per_s": 1.0, "rows": 2, "by_policy": {"live": 1, "initial": 1, "none": 0}, "staleness": {"0": 1},
    "staleness_mean": 0.0, "cut": 0, "skipped": 0, "token_balance": 1.0, "time_balance": 0.9,
    "tokens_by_rank": [45, 45], "loss": 1.5, "sft": 0.5, "chosen_logp": -0.5, "rejected_share": 1.0, "pairs": 2.0,
    "scored_tokens": 60.0, "computed_tokens": 90.0, "unique_tokens": 80.0, "odds_ratio": 0.8, "margin": -0.25,
    "rejected_logp": -0.25, "accuracy": 0.5, "sampler_gap": 0.0,
}  # fmt: skip


def _teacher(row: Row) -> list[Trace]:
    right, again, wrong = answers(row)
    kinds = [(right, "right", True), (again, "right", True), (right, "right", False), (wrong, "wrong", False)]
    return [
        Trace(row.id, sample, text, None, verdict, False, kept, sample == 2, "teacher", "t", 0, 7, 0.8)
        for sample, (text, verdict, kept) in enumerate(kinds)
    ]


def _student(row: Row) -> list[Trace]:
    wrong = answers(row)[2]
    texts = [(wrong, "wrong", True), ("So it is", "unparsed", False)]
    return [
        Trace(row.id, sample, text, tokens(text), verdict, False, kept, False, "student", "s", 0, 7, 0.8)
        for sample, (text, verdict, kept) in enumerate(texts)
    ]


def tokens(text: str) -> list[int]:
    return encode_completion(tokenizer(), text)


def _write_journal(layout: RunLayout) -> None:
    journal = Journal(layout.journal, global_batch=2)
    first, second = rows()
    cut = tokens(answers(first)[2])[:-1]
    journal.append(0, to_table([_group(0, 1, first, "live", 0, tokens(answers(first)[2]))]), 0)
    # A dead timeline's version of the same row: the newer one counts.
    journal.append(1, to_table([_group(1, 1, second, "live", 0, tokens("So it is"))]), 0)
    journal.append(1, to_table([_group(1, 1, second, "initial", 0, tokens(answers(second)[2]))]), 1)
    journal.append(2, to_table([_group(2, 2, first, "live", 1, cut)]), 1)
    journal.append(3, to_table([_group(3, 2, second, "none", 0, None, real=False)]), 1)


def _group(index: int, epoch: int, row: Row, policy: Origin, version: int, wrong: Any, *, real: bool = True) -> Any:
    right, again, _ = answers(row)
    return build_group(
        index=index,
        epoch=epoch,
        prompt_id=row.id,
        coin="live",
        policy=policy,
        version=version,
        real=real,
        prompt=tokens("x"),
        positives=[tokens(right), tokens(again)],
        negatives=[wrong] if wrong else [],
        negatives_logp=[-0.5 if policy == "live" else math.nan],
        matched=[(0, 0), (1, 0)] if wrong else [(0, -1)],
    )
