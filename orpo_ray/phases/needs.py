"""What each phase asks of the machines, and whether it is there: pure arithmetic, no Ray.

Actors that do not fit wait for ever (FACTS: Ray says nothing), so this is counted before anything starts.
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orpo_ray.config import RunConfig
from orpo_ray.config.place import Role
from orpo_ray.errors import InputError

GIB = 1 << 30
# Measured: a CPU engine is three processes of 1.8 to 2.5 GiB together, whatever small model it holds; a train worker
# imports torch and DeepSpeed.
_ENGINE_BYTES = 5 * GIB // 2
_WORKER_BYTES = 3 * GIB // 2
# Weights, gradients and AdamW's two moments in float32: what one worker holds where ZeRO shares nothing.
_BYTES_A_PARAMETER = 16
# With adapters the weights alone, and a quarter as much for all that belongs to the adapters.
_FROZEN_BYTES_A_PARAMETER = 5
# A checkpoint holds the weights in training precision, and float32 weights and two moments for the optimizer.
_CHECKPOINT_BYTES_A_PARAMETER = 16
# Traces, journal, ledger, Ray's own logs.
_OTHER_BYTES = GIB // 2
# Set by the manifests in deploy/, where an autoscaler brings nodes: Ray does not tell a driver what one may add.
AUTOSCALED = "ORPO_RAY_AUTOSCALED"


@dataclass(frozen=True)
class Group:
    """Equal actors, or tasks, of one phase.

    Attributes:
        cpus, gpus: of each, as Ray counts them.
        memory: bytes of each on the machine that it runs on; 0 where it is not known.
        role: whose node labels in `resources` hold for it; None where any node will do.
    """

    name: str
    count: int
    cpus: float
    gpus: float = 0.0
    memory: int = 0
    role: Role | None = None


def groups_by_phase(config: RunConfig, parameters: int = 0) -> dict[str, list[Group]]:
    """Who works in each phase that needs more than the driver.

    Args:
        parameters: of the student; 0 where not known.
    """
    resources = config.resources

    def engine(name: str, role: Role, count: int) -> Group:
        cpus, gpus = getattr(resources, f"{role}_cpus"), getattr(resources, f"{role}_gpus")
        return Group(name, count, cpus, gpus, 0 if gpus else _ENGINE_BYTES, role)

    samplers = engine("sampler", "sampler", resources.samplers)
    evaluator = engine("evaluator", "evaluator", 1)
    each = _BYTES_A_PARAMETER if config.train.lora is None else _FROZEN_BYTES_A_PARAMETER
    worker_bytes = 0 if resources.trainer_gpus else _WORKER_BYTES + each * parameters
    cpus, gpus = resources.trainer_cpus, resources.trainer_gpus
    workers = Group("train worker", config.train.workers, cpus, gpus, worker_bytes, "trainer")
    data = Group("data task", 1, 1.0)
    clients = max(teacher.clients for teacher in config.teachers)
    asking = [Group("teacher client and judge", clients, 0.6), data]
    served = [teacher.serve.min_replicas for teacher in config.teachers if teacher.backend == "serve"]
    if served:  # several teachers serve one after the other
        replicas = engine("teacher replica", "teacher", max(served))
        asking = [replicas, Group("ingress", 1, 0.1), *asking]
    return {
        "TEACH": asking,
        "SEED": [samplers, evaluator, data],
        "DISTILL": [samplers, evaluator, workers, data],
        "EVALUATE": [evaluator],
    }


def required_resources(config: RunConfig, parameters: int = 0) -> dict[str, dict[str, float]]:
    """By phase: `CPU` and `GPU` as Ray counts them, and `memory` in bytes of CPU engines and workers."""
    return {
        phase: {
            "CPU": round(sum(group.count * group.cpus for group in groups), 3),
            "GPU": round(sum(group.count * group.gpus for group in groups), 3),
            "memory": sum(group.count * group.memory for group in groups),
        }
        for phase, groups in groups_by_phase(config, parameters).items()
    }


def logical_cpus(config: RunConfig, physical: int) -> int:
    """Logical CPUs of an embedded cluster: engines and workers share the cores, so Ray is told of more than there are."""
    return max(physical, 1 + math.ceil(max(needs["CPU"] for needs in required_resources(config).values())))


def check_fits(config: RunConfig, there: Mapping[str, float], parameters: int = 0) -> None:
    """Compare what the greediest phase asks with what is there.

    Args:
        there: any of `CPU`, `GPU` and `memory` (bytes); what is left out is not compared.

    Raises:
        InputError: something does not fit; says what is asked, by whom, and what is there.
    """
    needs = required_resources(config, parameters)
    groups = groups_by_phase(config, parameters)
    problems = []
    for kind in ("CPU", "GPU", "memory"):
        if kind not in there:
            continue
        phase = max(needs, key=lambda name: needs[name][kind])
        asked = needs[phase][kind]
        if asked > there[kind] + 1e-6:
            problems.append(
                f"resources that do not fit: asked is {_amount(kind, asked)} ({phase}: {_who(kind, groups[phase])}), "
                f"there is {_amount(kind, there[kind])}; {_cure(kind)}"
            )
    if problems:
        raise InputError("\n".join(problems))


def machine_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: the machine's, or its container's limit (cgroup v2 or v1) if lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def count_parameters(model: str) -> int:
    """Parameters of a model directory, from the headers of its safetensors files; 0 where it has none here."""
    return sum(math.prod(shape) for shape in _shapes(model))


def adapter_parameters(model: str, rank: int) -> int:
    """About the parameters of LoRA adapters on all of a model's matrices; its embeddings, which get none, count too."""
    return sum(rank * sum(shape) for shape in _shapes(model) if len(shape) == 2)


def _shapes(model: str) -> Iterator[list[int]]:
    for file in sorted(Path(model).glob("*.safetensors")):
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
        yield from (tensor["shape"] for name, tensor in header.items() if name != "__metadata__")


def disk_bytes(config: RunConfig, parameters: int = 0, weights: int = 0) -> int:
    """About how much a run writes: checkpoints, published students that samplers may still read, and the export.

    Args:
        parameters, weights: the student's parameters, and bytes of its weights; read from its files where 0.
    """
    parameters = parameters or count_parameters(config.student.model)
    lora = config.train.lora
    weights = weights or sum(file.stat().st_size for file in Path(config.student.model).glob("*.safetensors"))
    # One checkpoint more than are kept, while the next is written, and one that is on its way to the mirror. A version in
    # the making, one a step of staleness, the newest, and the evaluator's.
    trained = parameters if lora is None else min(parameters, adapter_parameters(config.student.model, lora.rank))
    kept = config.train.checkpoints_kept + (2 if config.storage.mirror is not None else 1)
    checkpoints = kept * _CHECKPOINT_BYTES_A_PARAMETER * trained
    version = weights if lora is None or lora.publish == "merged" else 4 * trained
    versions = (config.policy.max_staleness + 3) * version
    return checkpoints + versions + weights + _OTHER_BYTES


def _amount(kind: str, value: float) -> str:
    if kind == "memory":
        return f"{value / GIB:.1f} GiB of memory"
    return f"{value:g} {kind}{'' if value == 1 else 's'}"


def _who(kind: str, groups: list[Group]) -> str:
    each = {group.name: {"CPU": group.cpus, "GPU": group.gpus, "memory": float(group.memory)}[kind] for group in groups}
    return ", ".join(
        f"{group.count} {group.name}{'' if group.count == 1 else 's'} × {_number(kind, each[group.name])}"
        for group in groups
        if each[group.name]
    )


def _number(kind: str, value: float) -> str:
    return f"{value / GIB:.1f} GiB" if kind == "memory" else f"{value:g}"


def _cure(kind: str) -> str:
    if kind == "memory":
        return "lower resources.samplers or train.workers, or take a larger machine"
    return f"lower what `resources` and train.workers ask, or give Ray more {kind}s"
