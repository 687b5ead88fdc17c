"""A cluster read from a file, from KubeRay's manifests, or off this machine."""

import os
from pathlib import Path

import pytest

from orpo_ray.deploy.shape import quantity, read_shape, this_machine
from orpo_ray.errors import InputError
from orpo_ray.phases.fit import NodeGroup

GIB = 2**30


def test_a_list_of_nodes(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "nodes:\n"
        "- {name: head, cpus: 2}\n"
        "- {name: gpus, count: 3, cpus: 16, gpus: 4, memory_gib: 64, gpu_memory_gib: 80, labels: {pool: a}}\n"
    )
    head, gpus = read_shape(file).groups
    assert head == NodeGroup("head", 1, 2)
    assert gpus == NodeGroup("gpus", 3, 16, 4, 64 * GIB, 80 * GIB, {"pool": "a"})


def test_kuberays_worker_groups_count_with_the_most_pods_that_they_may_have(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("""
apiVersion: v1
kind: ConfigMap
---
apiVersion: ray.io/v1
kind: RayJob
spec:
  rayClusterSpec:
    workerGroupSpecs:
      - groupName: trainers
        minReplicas: 0
        maxReplicas: 2
        labels: {orpo-ray.io/role: trainer}
        template: {spec: {containers: [{resources: {limits: {cpu: 3500m, memory: 16Gi, nvidia.com/gpu: "4"}}}]}}
""")
    assert read_shape(file).groups == (NodeGroup("trainers", 2, 4, 4, 16 * GIB, None, {"orpo-ray.io/role": "trainer"}),)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nodes: []", "nodes: List should have at least 1 item"),
        ("nodes: [{cpu: 1}]", "nodes.0.cpu: Extra inputs"),
        ("kind: Pod", "write `nodes:` and a list as"),
        ("a: b\n---\nc: d", "holds no RayCluster, RayJob or RayService"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_is_no_cluster_is_refused_with_what_would_be_one(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as refused:
        read_shape(file)
    assert part in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_shape(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("2", 2), (4, 4), ("2Gi", 2 * GIB), ("1.5Ki", 1536), ("3M", 3e6)]
)
def test_quantities(text: str | int, number: float) -> None:
    assert quantity(text) == number


def test_this_machine_has_its_cores_and_memory() -> None:
    (node,) = this_machine().groups
    assert node.cpus == os.cpu_count()
    assert node.memory is not None
    assert node.memory > GIB
