"""Groups of equal pods for a run: how many and how large, from what `resources` asks for. Pure arithmetic."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from orpo_ray.config import RunConfig
from orpo_ray.config.place import Role
from orpo_ray.deploy.plan import layout_of
from orpo_ray.phases.fit import ClusterShape, NodeGroup, demands_of, misfits
from orpo_ray.phases.needs import GIB, count_parameters, groups_by_phase

# The label by which `resources` chooses a group of pods where the configuration has no labels of its own.
ROLE_LABEL = "orpo-ray.io/role"
# A custom resource that only the driver's pod has: the job asks for it, so the driver lands there and nowhere else.
DRIVER_RESOURCE = "driver"
# Ray's own processes in a pod, and what a shared object store takes.
_OVERHEAD = 2 * GIB
# An engine, or a worker, on a GPU keeps its process, pinned buffers and a copy of the weights on the host.
_GPU_PROCESS = 12 * GIB
_UNKNOWN_WEIGHTS = 16 * GIB
# Tokenisers, collectives and the engine's own loop; a limit below that starves the GPU.
_CPUS_A_GPU = 4


@dataclass(frozen=True)
class Pool:
    """One worker group.

    Attributes:
        fewest, most: pods that an autoscaler keeps between.
        cpus, gpus: of each pod.
        memory, shm: bytes of each pod, and of its /dev/shm, which counts into them.
        labels: Ray's labels of its nodes.
        resources: custom resources of each node.
    """

    name: str
    fewest: int
    most: int
    cpus: int
    gpus: int
    memory: int
    shm: int
    labels: dict[str, str]
    resources: dict[str, str] = field(default_factory=dict)

    def fixed(self) -> "Pool":
        """The same without scaling: as many pods as there may be."""
        return replace(self, fewest=self.most)


def with_role_labels(config: RunConfig) -> RunConfig:
    """The configuration with a label for every role that has none, so that each works in the pods made for it."""
    resources = config.resources
    shared = layout_of(config) == "colocated"
    changed: dict[str, dict[str, str]] = {}
    for role in ("teacher", "sampler", "trainer"):
        if not getattr(resources, f"{role}_labels"):
            changed[f"{role}_labels"] = {ROLE_LABEL: "worker" if shared and role != "teacher" else role}
    return config.model_copy(update={"resources": resources.model_copy(update=changed)})


def pools_of(config: RunConfig, parameters: int = 0, gpus_a_pod: int = 8) -> list[Pool]:
    """The worker groups of a run; `config` as `with_role_labels` gives it.

    Args:
        parameters: of the student; read from its files where 0.
        gpus_a_pod: GPUs of the cluster's nodes: no pod asks for more.
    """
    parameters = parameters or count_parameters(config.student.model)
    return list(_pools(config, parameters, gpus_a_pod))


def shape_of(pools: list[Pool]) -> ClusterShape:
    """The cluster that the pools are at their largest."""
    groups = (
        NodeGroup(pool.name, pool.most, pool.cpus, pool.gpus, pool.memory, None, pool.labels | {}) for pool in pools
    )
    return ClusterShape("the pods", tuple(groups))


def teacher_pool(config: RunConfig, gpus_a_pod: int = 8) -> Pool:
    """Pods of the teacher's replicas."""
    replicas, gpus = config.teacher.serve, config.resources.teacher_gpus
    pods = max(1, math.ceil(gpus / gpus_a_pod))
    size = count_parameters(config.teacher.model or "")
    pool = _pool(config, "teacher", replicas.max_replicas * pods, 1, gpus / pods, size)
    # The ingress, which only passes requests on, works beside them.
    return replace(pool, cpus=pool.cpus + 1)


def _pools(config: RunConfig, parameters: int, gpus_a_pod: int) -> Iterator[Pool]:
    yield _driver(config)
    if config.teacher.backend == "serve":
        yield teacher_pool(config, gpus_a_pod)
    if layout_of(config) == "colocated":
        yield _colocated(config, parameters, gpus_a_pod)
        return
    resources, workers = config.resources, config.train.workers
    own_evaluator = resources.node_labels("evaluator") != resources.node_labels("sampler")
    larger = resources.evaluator_gpus > resources.sampler_gpus or resources.evaluator_cpus > resources.sampler_cpus
    beside = not (own_evaluator or larger)
    share = resources.sampler_gpus
    on_one = math.floor(1 / share + 1e-9) if 0 < share < 1 else 1
    yield _pool(
        config,
        "sampler",
        math.ceil((resources.samplers + beside) / on_one),
        on_one,
        max(share * on_one, bool(share)),
        parameters,
    )
    if not beside:
        yield _pool(config, "evaluator", 1, 1, math.ceil(resources.evaluator_gpus), parameters)
    together = min(workers, gpus_a_pod) if resources.trainer_strategy in ("PACK", "STRICT_PACK") else 1
    yield _pool(
        config,
        "trainer",
        math.ceil(workers / together),
        together,
        math.ceil(together * resources.trainer_gpus),
        parameters,
    )


def _pool(config: RunConfig, role: Role, pods: int, actors: int, gpus: float, parameters: int) -> Pool:
    """Pods of `actors` actors each, with `gpus` GPUs a pod."""
    resources = config.resources
    cpus = math.ceil(actors * getattr(resources, f"{role}_cpus"))
    cpus = max(cpus, _CPUS_A_GPU * math.ceil(gpus) if gpus else actors * resources.threads)
    each = _memory(config, role, parameters)
    shm = (8 if gpus else 1) * GIB
    memory = math.ceil((actors * each + _OVERHEAD + shm) / GIB) * GIB
    names = {"sampler": "samplers", "trainer": "trainers"}
    return Pool(
        names.get(role, role), 0, pods, cpus, math.ceil(gpus), memory, shm, _node_labels(resources.node_labels(role))
    )


def _memory(config: RunConfig, role: Role, parameters: int) -> int:
    """Bytes of one actor of `role` on its host."""
    for groups in groups_by_phase(config, parameters).values():
        for group in groups:
            if group.role == role:
                return group.memory or _GPU_PROCESS + (4 * parameters or _UNKNOWN_WEIGHTS)
    return _GPU_PROCESS


def _colocated(config: RunConfig, parameters: int, gpus_a_pod: int) -> Pool:
    """Samplers, evaluator and train workers on the same GPUs: as few of these as hold all."""
    distill = groups_by_phase(config, parameters)["DISTILL"]
    groups = [group for group in distill if group.role is not None]
    demands = [demand for group in groups for demand in demands_of(config, group)]
    labels = _node_labels(config.resources.node_labels("trainer") | config.resources.node_labels("sampler"))
    asked = math.ceil(sum(group.count * group.cpus for group in groups))
    gpus = config.train.workers
    while True:
        pods, each = math.ceil(gpus / gpus_a_pod), min(gpus, gpus_a_pod)
        cpus = max(asked, _CPUS_A_GPU * each)
        shape = ClusterShape("pods", (NodeGroup("workers", pods, cpus, each, None, None, labels),))
        if not misfits(demands, shape) or gpus > 4 * sum(group.count for group in groups):
            break
        gpus += 1
    actors = sum(group.count for group in groups)
    memory = actors * (_GPU_PROCESS + 4 * parameters) + _OVERHEAD + 16 * GIB
    return Pool("workers", 0, pods, cpus, each, math.ceil(memory / GIB) * GIB, 16 * GIB, labels)


def _driver(config: RunConfig) -> Pool:
    """One pod for the driver and what else goes anywhere: data tasks, the teacher's clients and judges."""
    anywhere = [group for groups in groups_by_phase(config).values() for group in groups if group.role is None]
    most = {group.name: group.count * group.cpus for group in anywhere}
    cpus = 1 + math.ceil(sum(most.values()))
    return Pool("driver", 1, 1, cpus, 0, 8 * GIB, GIB, {ROLE_LABEL: "driver"}, {DRIVER_RESOURCE: "1"})


def _node_labels(selector: dict[str, str]) -> dict[str, str]:
    """Labels that satisfy a selector: of `in(a, b)` the first; what is only denied needs none."""
    labels = {}
    for key, wanted in selector.items():
        if not wanted.startswith("!"):
            labels[key] = wanted[3:-1].split(",")[0].strip() if wanted.startswith("in(") else wanted
    return labels
