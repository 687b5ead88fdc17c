"""A dry run: who works in each phase, what a run will sample, train and write, and which part finds no room."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.pairs.phi import scheduled
from orpo_ray.phases.fit import Bundle, ClusterShape, Demand, NodeGroup, demands_of, misfits
from orpo_ray.phases.needs import GIB, Group, count_parameters, disk_bytes, groups_by_phase, logical_cpus
from orpo_ray.tasks.split_of import has_validation, split_of

DRIVER = Demand("driver", (Bundle(1.0),))
# A trace in the store or the journal: token ids and text, before compression.
_BYTES_A_TOKEN = 8
# Weights of an engine in 16 bits, and in 32.
_BYTES = {"float32": 4, "auto": 2, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Amounts:
    """What a run will do, from its options alone. Tokens are the most there can be: traces end before max_tokens.

    Attributes:
        prompts: training prompts; the count of those with a right teacher trace is known after TEACH only.
        live_traces: expected, since a coin of policy.phi decides; with phi_schedule `adaptive`, of the first epoch's φ.
        disk_bytes: about, on the storage; None where the student's size is not known here.
    """

    prompts: int
    teacher_traces: int
    teacher_tokens: int
    initial_traces: int
    initial_tokens: int
    live_traces: int
    live_tokens: int
    pairs: int
    steps: int
    versions: int
    evaluations: int
    evaluation_tokens: int
    disk_bytes: int | None


@dataclass(frozen=True)
class PlannedGroup:
    """Equal actors of one phase, and where they may go.

    Attributes:
        most: actors at most, where autoscaling may add some.
        strategy: how they, or the bundles of each, are laid over nodes; empty where each stands alone.
    """

    name: str
    count: int
    most: int
    cpus: float
    gpus: float
    memory: int
    labels: dict[str, str]
    strategy: str


@dataclass(frozen=True)
class Plan:
    """What `orpo-ray plan` tells.

    Attributes:
        layout: colocated, disaggregated, or cpu.
        phases: by name, in their order.
        amounts: None where the number of training prompts is not known without fetching the data.
        cluster: what it was laid on.
        problems: what does not fit, by phase.
    """

    run: str
    layout: str
    student_parameters: int
    phases: dict[str, list[PlannedGroup]]
    amounts: Amounts | None
    cluster: str
    problems: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        """Plain data; `fits` says whether there are no problems."""
        return {**asdict(self), "fits": not self.problems}


def make_plan(config: RunConfig, cluster: ClusterShape, *, own_cluster: bool, parameters: int = 0) -> Plan:
    """Lay a run on a cluster.

    Args:
        own_cluster: the run would start Ray on this machine by itself, with as many logical CPUs as it needs.
        parameters: of the student; read from its files where 0, and not known where those are not here.
    """
    parameters = parameters or count_parameters(config.student.model)
    by_phase = groups_by_phase(config, parameters)
    if not config.trains:
        by_phase = {"EVALUATE": by_phase["EVALUATE"]}
    if own_cluster:
        cluster = _with_cpus(cluster, logical_cpus(config, 1))
    problems: dict[str, list[str]] = {}
    for phase, groups in by_phase.items():
        demands = [demand for group in groups for demand in demands_of(config, group)]
        found = misfits(demands if own_cluster else [DRIVER, *demands], cluster)
        found_here = [f"{misfit.demand}: {misfit.reason}" for misfit in found]
        if found_here:
            problems[phase] = found_here
    tight = _gpu_memory_problems(config, parameters, cluster)
    for phase, sentence in tight:
        problems.setdefault(phase, []).append(sentence)
    return Plan(
        run=config.name,
        layout=layout_of(config),
        student_parameters=parameters,
        phases={phase: [_planned(config, group) for group in groups] for phase, groups in by_phase.items()},
        amounts=amounts_of(config, parameters),
        cluster=cluster.name,
        problems=problems,
    )


def layout_of(config: RunConfig) -> str:
    """`colocated`: a sampler and a train worker may share a GPU; `disaggregated`: each has its own; or `cpu`."""
    resources = config.resources
    if not (resources.sampler_gpus or resources.trainer_gpus):
        return "cpu"
    return "colocated" if 0 < resources.trainer_gpus < 1 and 0 < resources.sampler_gpus < 1 else "disaggregated"


def amounts_of(config: RunConfig, parameters: int) -> Amounts | None:
    """What the run will sample, train and write; None where the training prompts would have to be fetched to be counted."""
    prompts = _prompts(config)
    if prompts is None:
        return None
    sampling, evaluation, trains = config.sampling, config.eval_max_tokens, config.trains
    k, longest, epochs = sampling.k, sampling.max_tokens, config.train.epochs if trains else 0
    held_out = tests = config.task.test_size
    if config.export.select == "best" and has_validation(config.task):
        held_out += config.task.validation_size
    recorded = config.teacher.backend == "recorded"
    asked = prompts * k if trains else 0
    initial = asked if config.negatives_source == "student" else 0
    live = round(prompts * sum(scheduled(config.live_policy, epochs))) * k if trains else 0
    # pass@k: of the first student and the last, or of every epoch's where the best is exported.
    students = min(epochs + 1, 2) if config.export.select == "last" else epochs + 1
    several = students * config.eval.k if config.eval.k > 1 else 0
    geometry = config.geometry(prompts)
    stored = (asked * (not recorded) + initial + live) * longest * _BYTES_A_TOKEN
    return Amounts(
        prompts=prompts,
        teacher_traces=asked,
        teacher_tokens=0 if recorded or not trains else asked * longest + tests * evaluation,
        initial_traces=initial,
        initial_tokens=initial * longest,
        live_traces=live,
        live_tokens=live * longest,
        pairs=prompts * epochs * config.train.pairs_per_prompt,
        steps=geometry.steps if trains else 0,
        versions=geometry.version_at(geometry.steps) if trains else 0,
        evaluations=epochs + 1,
        evaluation_tokens=(epochs + 1) * held_out * evaluation + several * tests * evaluation,
        disk_bytes=_disk(config, parameters) + stored if parameters else None,
    )


def _disk(config: RunConfig, parameters: int) -> int:
    if count_parameters(config.student.model):
        return disk_bytes(config)
    # The student's files are not here: its weights are taken to be in 16 bits.
    return disk_bytes(config, parameters, 2 * parameters)


def _prompts(config: RunConfig) -> int | None:
    task = config.task
    if task.train_size is not None:
        return task.train_size
    if task.path is None or not Path(task.path).is_file():
        return None
    return len(split_of(task, "train", config.seed).rows())


def _planned(config: RunConfig, group: Group) -> PlannedGroup:
    resources = config.resources
    most, strategy = group.count, ""
    if group.role == "teacher":
        most = config.teacher.serve.max_replicas
        strategy = resources.teacher_strategy if config.teacher.engine.tensor_parallel > 1 else ""
    if group.role == "trainer":
        strategy = resources.trainer_strategy
    labels = resources.node_labels(group.role) if group.role else {}
    return PlannedGroup(group.name, group.count, most, group.cpus, group.gpus, group.memory, labels, strategy)


def _with_cpus(cluster: ClusterShape, cpus: int) -> ClusterShape:
    (node,) = cluster.groups
    raised = NodeGroup(node.name, 1, max(node.cpus, float(cpus)), node.gpus, node.memory, node.gpu_memory, node.labels)
    return ClusterShape(cluster.name, (raised,))


def _gpu_memory_problems(config: RunConfig, parameters: int, cluster: ClusterShape) -> list[tuple[str, str]]:
    """Weights and optimizer that a GPU cannot hold, where sizes are known; activations and caches come on top."""
    known = [group.gpu_memory for group in cluster.groups if group.gpu_memory]
    if not known:
        return []
    most, resources, found = max(known), config.resources, []
    trained = trainer_bytes(config, parameters)
    share = most * resources.trainer_gpus
    if resources.trainer_gpus and trained > share:
        found.append(
            (
                "DISTILL",
                f"train worker: weights, gradients and optimizer take {trained / GIB:.1f} GiB of its {share / GIB:.1f} GiB "
                f"of GPU memory with train.zero_stage {config.train.zero_stage} on {config.workers_min} workers; take a "
                "higher stage or more workers",
            )
        )
    teacher = config.teacher.model if config.teacher.backend == "serve" else None
    engines = [
        (
            "TEACH",
            "teacher",
            config.teacher.engine,
            count_parameters(teacher) if teacher else 0,
            resources.teacher_gpus,
        ),
        ("SEED", "student", config.student.engine, parameters, resources.sampler_gpus),
    ]
    for phase, model, engine, size, gpus in engines:
        needed = size * _BYTES[engine.dtype] / engine.tensor_parallel
        if gpus and needed > most * engine.gpu_memory:
            found.append(
                (
                    phase,
                    f"{model}: its weights take {needed / GIB:.1f} GiB on each of {engine.tensor_parallel} GPUs, of which "
                    f"the engine may use {most * engine.gpu_memory / GIB:.1f} GiB; raise {model}.engine.tensor_parallel",
                )
            )
    return found


def trainer_bytes(config: RunConfig, parameters: int) -> int:
    """Bytes of weights, gradients and AdamW's state on each rank of the smallest group (ZeRO, arXiv 1910.02054, section 3).

    In bf16: 2 bytes a weight, 2 a gradient, 12 for float32 weights and two moments; in fp32: 4, 4 and 8. Stage 1 shares
    the last among the ranks, stage 2 gradients too, stage 3 all.
    """
    weight, gradient, state = (2, 2, 12) if config.train.precision == "bf16" else (4, 4, 8)
    ranks, stage = config.workers_min, config.train.zero_stage
    shared = state + (gradient if stage >= 2 else 0) + (weight if stage >= 3 else 0)
    whole = weight + gradient + state - shared
    return parameters * whole + parameters * shared // ranks
