"""Keys of finished work: a phase's result is found again as long as nothing it depends on has changed."""

import hashlib
import json
from typing import Any

from orpo_ray.config.run import RunConfig
from orpo_ray.config.section import flatten

# What may change between two starts of one run without changing what it computes.
FREE_TO_CHANGE = ("name", "recipe", "storage", "tracking", "resources", "limits")
FREE_FIELDS = (
    "teacher.concurrency",
    "teacher.request_timeout_s",
    "teacher.retries",
    "teacher.serve",
    "teacher.api_key_env",
    "train.checkpoint_every",
    "train.checkpoints_kept",
    "train.workers",
    "train.micro_batch",
    "train.token_budget",
    "train.offload",
    "train.non_finite",
    "train.gradient_checkpointing",
    "eval.samples_kept",
    "task.judge.api_key_env",
    "task.judge.cache",
    "task.judge.concurrency",
    "task.judge.request_timeout_s",
    "task.judge.retries",
    "task.judge.labelled",
    "task.judge.min_agreement",
    "export.lora",
)


def fingerprint(*parts: Any) -> str:
    """A short hash (16 hex digits) of plain data: the same data, the same hash, on any machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def what_matters(config: RunConfig) -> dict[str, Any]:
    """Every option that changes what a run computes, as flat `section.option` names."""
    flat = flatten(config.model_dump(mode="json", by_alias=True))
    return {key: value for key, value in flat.items() if not _is_free(key)}


def changed_fields(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Sentences `field: was X, is Y` for each option that differs between two results of `what_matters`."""
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: was {before.get(key)!r}, is {after.get(key)!r}" for key in keys if before.get(key) != after.get(key)
    ]


def _is_free(key: str) -> bool:
    return key.split(".")[0] in FREE_TO_CHANGE or any(key == free or key.startswith(free + ".") for free in FREE_FIELDS)
