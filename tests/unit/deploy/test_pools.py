"""Pods for a run, counted by hand."""

from typing import Any

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.deploy.pools import Pool, pools_of, with_role_labels

GIB = 2**30


def config(**sections: dict[str, Any]) -> RunConfig:
    data: dict[str, Any] = {
        "task": {"name": "arithmetic"},
        "teacher": {"model": "m/teacher", "concurrency": 64},
        "student": {"model": "m/student"},
        "train": {"workers": 2},
    }
    merged = {name: {**data.get(name, {}), **sections.get(name, {})} for name in {*data, *sections}}
    return with_role_labels(parse_config(merged))


def pool(name: str, run: RunConfig, **options: Any) -> Pool:
    (found,) = [each for each in pools_of(run, parameters=2**30, **options) if each.name == name]
    return found


def test_the_default_on_cpus() -> None:
    names = [(each.name, each.fewest, each.most, each.cpus, each.gpus) for each in pools_of(config())]
    assert names == [
        # 1 for the driver; a data task, the ingress, and the teacher's client and judge, which take 1.7, rounded up.
        ("driver", 1, 1, 3, 0),
        # Its engine, and the ingress.
        ("teacher", 0, 1, 2, 0),
        # A sampler, and the evaluator in a pod of the same kind.
        ("samplers", 0, 2, 1, 0),
        # Two workers in one pod.
        ("trainers", 0, 1, 2, 0),
    ]


def test_memory_of_a_pod_is_its_actors_rays_own_and_shared_memory() -> None:
    # An engine's 2.5 GiB, 2 for Ray and 1 of /dev/shm, rounded up.
    assert pool("samplers", config()).memory == 6 * GIB
    # Two workers of 1.5 GiB and 16 bytes for each of 2**30 parameters.
    assert pool("trainers", config()).memory == (2 * 17.5 + 2 + 1) * GIB


def test_threads_are_cores_of_a_pod_without_gpus() -> None:
    run = config(resources={"threads": 4})
    assert (pool("samplers", run).cpus, pool("trainers", run).cpus) == (4, 8)


def test_train_workers_share_a_pod_unless_they_are_spread() -> None:
    gpus = {"trainer_gpus": 1, "sampler_gpus": 1, "evaluator_gpus": 1, "teacher_gpus": 1}
    packed = pool("trainers", config(train={"workers": 16, "global_batch": 128}, resources=gpus))
    assert (packed.most, packed.gpus, packed.cpus) == (2, 8, 32)
    spread = pool("trainers", config(train={"workers": 4}, resources=gpus | {"trainer_strategy": "SPREAD"}))
    assert (spread.most, spread.gpus, spread.cpus) == (4, 1, 4)
    small = pool("trainers", config(train={"workers": 4}, resources=gpus), gpus_a_pod=2)
    assert (small.most, small.gpus) == (2, 2)


def test_a_replica_of_the_teacher_is_a_pod_with_its_gpus() -> None:
    run = config(
        teacher={"engine": {"tensor_parallel": 4}, "serve": {"min_replicas": 1, "max_replicas": 3}},
        resources={"teacher_gpus": 4},
    )
    replica = pool("teacher", run)
    assert (replica.fewest, replica.most, replica.gpus, replica.cpus) == (0, 3, 4, 17)
    # On nodes of two GPUs a replica is two pods.
    assert pool("teacher", run, gpus_a_pod=2).most == 6


def test_an_evaluator_that_is_larger_or_elsewhere_has_a_pod_of_its_own() -> None:
    larger = config(resources={"evaluator_cpus": 4})
    assert (pool("samplers", larger).most, pool("evaluator", larger).cpus) == (1, 4)
    elsewhere = config(resources={"evaluator_labels": {"pool": "b"}})
    assert pool("evaluator", elsewhere).labels == {"pool": "b"}


def test_shares_of_a_gpu_are_put_together() -> None:
    run = config(
        student={"engine": {"gpu_memory": 0.4}},
        resources={"samplers": 3, "sampler_gpus": 0.5, "evaluator_gpus": 0.5, "trainer_gpus": 1, "teacher_gpus": 1},
    )
    # Three samplers and the evaluator, two on a GPU.
    assert (pool("samplers", run).most, pool("samplers", run).gpus) == (2, 1)


def test_colocated_actors_have_one_group() -> None:
    run = config(
        student={"engine": {"gpu_memory": 0.2}},
        train={"workers": 1},
        resources={"sampler_gpus": 0.2, "evaluator_gpus": 0.2, "trainer_gpus": 0.6, "teacher_gpus": 1},
    )
    assert [each.name for each in pools_of(run)] == ["driver", "teacher", "workers"]
    shared = pool("workers", run)
    assert (shared.most, shared.gpus, shared.labels) == (1, 1, {"orpo-ray.io/role": "worker"})


def test_labels_of_the_configuration_are_those_of_the_pods() -> None:
    run = config(
        resources={
            "sampler_labels": {"pool": "in(a, b)", "zone": "!c"},
            "sampler_accelerator": "L4",
            "sampler_gpus": 1,
            "evaluator_gpus": 1,
        }
    )
    assert pool("samplers", run).labels == {"pool": "a", "ray.io/accelerator-type": "L4"}
    assert pool("trainers", run).labels == {"orpo-ray.io/role": "trainer"}
