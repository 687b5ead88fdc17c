"""The shape of a cluster, read from a file, from KubeRay's manifests, or off this machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orpo_ray.config.section import Section, option
from orpo_ray.errors import InputError
from orpo_ray.phases.fit import ClusterShape, NodeGroup
from orpo_ray.phases.needs import GIB, machine_memory

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "": 1}
GPU = "nvidia.com/gpu"


class _Nodes(Section):
    """One entry of a cluster file."""

    name: str = option("nodes", "What the group is called in messages.")
    count: int = option(1, "Nodes of this kind.", unit="nodes", ge=1)
    cpus: float = option(1, "CPUs of a node.", unit="CPUs", ge=0)
    gpus: int = option(0, "GPUs of a node.", unit="GPUs", ge=0)
    memory_gib: float | None = option(None, "Memory of a node.", unit="GiB", gt=0)
    gpu_memory_gib: float | None = option(None, "Memory of a GPU.", unit="GiB", gt=0)
    labels: dict[str, str] = option({}, "Ray's labels of the nodes.")


class _File(Section):
    """A cluster file: `nodes:` and a list."""

    nodes: list[_Nodes] = option(..., "Kinds of nodes.", min_length=1)


def this_machine() -> ClusterShape:
    """One node with what this machine has; its CPUs are logical, so engines and workers may share them."""
    gpus = len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])
    node = NodeGroup("this machine", 1, float(os.cpu_count() or 1), gpus, machine_memory())
    return ClusterShape("this machine", (node,))


def read_shape(path: str | Path) -> ClusterShape:
    """The cluster that a file describes: `nodes: [{count: 2, cpus: 8, gpus: 1, …}]`, or KubeRay's own manifests.

    Raises:
        InputError: there is no such file, or it is neither.
    """
    file = Path(path)
    try:
        documents = [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML: {error}") from None
    for document in documents:
        spec = cluster_spec(document)
        if spec is not None:
            return ClusterShape(file.name, tuple(_worker_groups(spec)))
    if len(documents) != 1:
        raise InputError(f"{file}: holds no RayCluster, RayJob or RayService, and is no list of `nodes:` either")
    try:
        nodes = _File.model_validate(documents[0]).nodes
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "nodes"
        raise InputError(
            f"{file}: {place}: {first['msg']}; write `nodes:` and a list as `- {{count: 2, cpus: 8, gpus: 1, "
            "memory_gib: 64, labels: {orpo-ray.io/role: trainer}}`"
        ) from None
    return ClusterShape(
        file.name,
        tuple(
            NodeGroup(
                kind.name,
                kind.count,
                kind.cpus,
                kind.gpus,
                int(kind.memory_gib * GIB) if kind.memory_gib else None,
                int(kind.gpu_memory_gib * GIB) if kind.gpu_memory_gib else None,
                kind.labels,
            )
            for kind in nodes
        ),
    )


def cluster_spec(document: Any) -> dict[str, Any] | None:
    """The RayCluster's spec in a KubeRay resource; None where `document` is another."""
    if not isinstance(document, dict) or not str(document.get("apiVersion", "")).startswith("ray.io/"):
        return None
    spec: dict[str, Any] = document["spec"]
    where = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}.get(document["kind"])
    inner: dict[str, Any] = spec[where] if where else spec
    return inner


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: `500m` is 0.5, `2Gi` is 2 · 2**30."""
    written = str(text)
    if written.endswith("m"):
        return float(written[:-1]) / 1000
    digits = written.rstrip("KMGTkiB")
    return float(digits) * _UNITS[written[len(digits) :]]


def _worker_groups(spec: dict[str, Any]) -> Iterator[NodeGroup]:
    for group in spec.get("workerGroupSpecs", []):
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        count = group.get("maxReplicas", group.get("replicas", 1)) * group.get("numOfHosts", 1)
        gpus = int(quantity(limits.get(GPU, 0)))
        # As KubeRay tells Ray: whole CPUs, rounded up.
        cpus = float(-(-quantity(limits["cpu"]) // 1))
        yield NodeGroup(
            group["groupName"], count, cpus, gpus, int(quantity(limits["memory"])), None, group.get("labels", {})
        )
