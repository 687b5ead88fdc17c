"""Keys of finished work: a phase's result is found again as long as nothing it depends on has changed."""

import hashlib
import json
import re
from typing import Any

from orpo_ray.config.run import RunConfig
from orpo_ray.config.section import flatten

# What may change between two starts of one run without changing what it trains on or how.
FREE_TO_CHANGE = ("name", "recipe", "storage", "tracking", "resources", "limits", "eval", "export")
_ENGINE_ROOM = ("kv_cache_mib", "gpu_memory", "max_num_seqs", "tensor_parallel")
FREE_FIELDS = (
    "teacher.concurrency",
    "teacher.request_timeout_s",
    "teacher.retries",
    "teacher.serve",
    "teacher.api_key_env",
    "train.checkpoint_every",
    "train.checkpoints_kept",
    "train.workers",
    "train.workers_min",
    "train.micro_batch",
    "train.token_budget",
    "train.offload",
    "train.non_finite",
    "train.gradient_checkpointing",
    "task.judge.api_key_env",
    "task.judge.cache",
    "task.judge.concurrency",
    "task.judge.request_timeout_s",
    "task.judge.retries",
    "task.judge.labelled",
    "task.judge.min_agreement",
    # What an engine holds at a time, not what it says: a seeded request is answered alike in any company.
    *(f"{model}.engine.{option}" for model in ("teacher", "student") for option in _ENGINE_ROOM),
)
# These change what is trained on only where they change the training rows, as when a split is cut off their file: the
# rows tell.
HELD_OUT = ("task.validation_path", "task.validation_size", "task.test_path", "task.test_size")


def fingerprint(*parts: Any) -> str:
    """A short hash (16 hex digits) of plain data: the same data, the same hash, on any machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def what_matters(config: RunConfig) -> dict[str, Any]:
    """Every option that changes the pairs or the training, as flat `section.option` names.

    The options of the held-out splits are not among them: see `held_out`.
    """
    flat = _flat(config)
    return {key: value for key, value in flat.items() if not _is_free(key) and key not in HELD_OUT}


def held_out(config: RunConfig) -> dict[str, Any]:
    """The options of the held-out splits: they matter where a change of them changes the training rows."""
    flat = _flat(config)
    return {key: flat[key] for key in HELD_OUT}


def changed_fields(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Sentences `field: was X, is Y` for each option that differs between two results of `what_matters`."""
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: was {before.get(key)!r}, is {after.get(key)!r}" for key in keys if before.get(key) != after.get(key)
    ]


def _flat(config: RunConfig) -> dict[str, Any]:
    """All options; those of a further teacher as `more_teachers.0.option`."""
    flat = flatten(config.model_dump(mode="json", by_alias=True))
    for at, teacher in enumerate(flat.pop("more_teachers")):
        flat |= flatten(teacher, f"more_teachers.{at}.")
    return flat


def _is_free(key: str) -> bool:
    as_first = re.sub(r"^more_teachers\.\d+\.", "teacher.", key)
    return key.split(".")[0] in FREE_TO_CHANGE or any(
        as_first == free or as_first.startswith(free + ".") for free in FREE_FIELDS
    )
