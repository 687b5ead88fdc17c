"""A whole run at toy size: configuration, and teacher traces as TEACH would have left them."""

from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.phases.context import RunContext
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import TraceDraft


def tiny_config(storage: Path, student: Path, **sections: dict[str, Any]) -> RunConfig:
    """A configuration over the sums task; `sections` are merged over it."""
    data: dict[str, Any] = {
        "name": "tiny",
        "task": {"name": "tests.tiny.sums:SumsTask", "train_size": 20, "test_size": 8},
        "teacher": {"backend": "recorded", "path": "unused.jsonl"},
        "student": {
            "model": str(student),
            "max_length": 96,
            "engine": {"dtype": "float32", "max_model_len": 96, "max_num_seqs": 32, "kv_cache_mib": 32},
        },
        "sampling": {"k": 3, "max_tokens": 12},
        "negatives": {"truncated": "keep"},
        "train": {
            "epochs": 2, "global_batch": 8, "micro_batch": 2, "workers": 2, "zero_stage": 2, "precision": "fp32",
            "learning_rate": 1e-3, "pairs_per_prompt": 2, "checkpoint_every": 2,
        },
        "resources": {"block_rows": 2},
        "storage": {"path": str(storage)},
        "tracking": {"tensorboard": False},
    }  # fmt: skip
    for section, values in sections.items():
        data[section] = {**data.get(section, {}), **values} if isinstance(values, dict) else values
    return parse_config(data)


def context_of(config: RunConfig) -> RunContext:
    """The run's context, with what is said kept in `context.live["said"]`."""
    said: list[tuple[str, dict[str, Any]]] = []
    layout = RunLayout(Path(config.storage.path), config.name)
    layout.run.mkdir(parents=True, exist_ok=True)
    context = RunContext(config, layout, lambda kind, **facts: said.append((kind, facts)))
    context.live["said"] = said
    return context


def teach_by_hand(context: RunContext, never_right: int = 2) -> None:
    """Teacher traces in two wordings for all training prompts but the first `never_right`."""
    directory = context.layout.traces("teacher", "byhand")
    rows = split_of(context.config.task, "train", context.config.seed).rows()
    traces = []
    for place, row in enumerate(rows):
        a, b = row.data["a"], row.data["b"]
        texts = [f"{a} and {b} make {a + b}. The answer is {a + b}.", f"Count on from {a}: the answer is {a + b}."]
        right = place >= never_right
        traces += [
            Trace(row.id, sample, text, None, "right" if right else "wrong", False, right, False, "teacher", "byhand")
            for sample, text in enumerate(texts)
        ]
    draft = TraceDraft(directory)
    draft.write(0, traces, len(rows))
    draft.finish(1, "byhand", {"by": "hand"})
    context.results["TEACH"] = {"key": "byhand", "path": str(directory)}
