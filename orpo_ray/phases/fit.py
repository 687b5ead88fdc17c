"""Whether actors find room on the nodes of a cluster, by the rules that Ray places by. Pure arithmetic.

Ray itself says nothing where they do not: they wait for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from orpo_ray.config import RunConfig
from orpo_ray.config.place import Strategy
from orpo_ray.errors import InputError
from orpo_ray.phases.needs import Group, groups_by_phase

_EPSILON = 1e-6


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes.

    Attributes:
        gpus: of each node.
        memory: bytes of each node; None where not known, and then not compared.
        gpu_memory: bytes of each GPU; None where not known.
        labels: Ray's labels of the nodes.
    """

    name: str
    count: int
    cpus: float
    gpus: int = 0
    memory: int | None = None
    gpu_memory: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterShape:
    """All nodes of a cluster; an autoscaled group counts with the most nodes that it may have."""

    name: str
    groups: tuple[NodeGroup, ...]


@dataclass(frozen=True)
class Bundle:
    """What one process asks of one node; below 1 GPU it is a share of one."""

    cpus: float
    gpus: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class Demand:
    """Bundles that are placed together, as a placement group or as one actor.

    Attributes:
        name: of the actor or group, for messages.
        labels: Ray label selector of the nodes.
    """

    name: str
    bundles: tuple[Bundle, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    strategy: Strategy = "PACK"


@dataclass(frozen=True)
class Misfit:
    """A demand without a place.

    Attributes:
        reason: a sentence that says what there is too little of.
        certain: it would find none if it were alone; else another order might have found one.
    """

    demand: str
    reason: str
    certain: bool = False


class _Node:
    """What is left of one node."""

    def __init__(self, group: NodeGroup) -> None:
        self.group = group
        self.cpus = group.cpus
        self.memory = group.memory
        self.gpus = [1.0] * group.gpus

    def take(self, bundle: Bundle) -> bool:
        """Take what `bundle` asks; nothing is taken where it is not all there."""
        if bundle.cpus > self.cpus + _EPSILON or (self.memory is not None and bundle.memory > self.memory):
            return False
        if bundle.gpus >= 1:
            free = [place for place, left in enumerate(self.gpus) if left > 1 - _EPSILON]
            if len(free) < bundle.gpus:
                return False
            for place in free[: int(bundle.gpus)]:
                self.gpus[place] = 0.0
        elif bundle.gpus:
            shares = [place for place, left in enumerate(self.gpus) if left > bundle.gpus - _EPSILON]
            if not shares:
                return False
            # The fullest GPU that still has room, so that whole ones stay whole.
            self.gpus[min(shares, key=lambda place: self.gpus[place])] -= bundle.gpus
        self.cpus -= bundle.cpus
        if self.memory is not None:
            self.memory -= bundle.memory
        return True

    def state(self) -> tuple[float, int | None, list[float]]:
        return self.cpus, self.memory, list(self.gpus)

    def restore(self, state: tuple[float, int | None, list[float]]) -> None:
        self.cpus, self.memory, self.gpus = state[0], state[1], list(state[2])


def demands_of(config: RunConfig, group: Group) -> list[Demand]:
    """What Ray is asked for: a placement group for all train workers, one for each teacher replica, else one actor each."""
    resources = config.resources
    labels = resources.node_labels(group.role) if group.role else {}
    one = Bundle(group.cpus, group.gpus, group.memory)
    if group.role == "trainer":
        return [Demand("train workers", (one,) * group.count, labels, resources.trainer_strategy)]
    bundles: tuple[Bundle, ...] = (one,)
    strategy: Strategy = "PACK"
    if group.role == "teacher":
        parts = config.teacher.engine.tensor_parallel if group.gpus else 1
        bundles = (Bundle(group.cpus / parts, group.gpus / parts, group.memory // parts),) * parts
        strategy = resources.teacher_strategy
    if group.count == 1:
        return [Demand(group.name, bundles, labels, strategy)]
    return [Demand(f"{group.name} {n}", bundles, labels, strategy) for n in range(1, group.count + 1)]


def misfits(demands: Sequence[Demand], cluster: ClusterShape) -> list[Misfit]:
    """Demands that find no place beside each other on `cluster`.

    Those that may go to fewest nodes, and the largest, are placed first, each on the first node with room: Ray's own
    order is another, so that a cluster which is full to the last CPU may still disappoint.
    """
    nodes = [_Node(group) for group in cluster.groups for _ in range(group.count)]
    allowed = [[node for node in nodes if matches(demand.labels, node.group.labels)] for demand in demands]
    order = sorted(range(len(demands)), key=lambda place: (len(allowed[place]), *_size(demands[place])))
    found: dict[int, Misfit] = {}
    for place in order:
        if not _placed(demands[place], allowed[place]):
            alone = _placed(demands[place], [_Node(node.group) for node in allowed[place]])
            reason = _reason(demands[place], allowed[place], cluster)
            found[place] = Misfit(demands[place].name, reason, certain=not alone)
    return [found[place] for place in sorted(found)]


def check_places(config: RunConfig, cluster: ClusterShape) -> None:
    """Refuse a run of which some actor would wait for ever, whatever else is there: no node has its labels, or its size.

    Raises:
        InputError: says which actor of which phase, and why.
    """
    lines = [
        f"{phase}: {misfit.demand}: {misfit.reason}"
        for phase, groups in groups_by_phase(config).items()
        for misfit in misfits([demand for group in groups for demand in demands_of(config, group)], cluster)
        if misfit.certain
    ]
    if lines:
        raise InputError("resources that find no place\n" + "\n".join(f"  - {line}" for line in lines))


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node's labels are what a Ray label selector asks; what it denies may also be missing."""
    for key, wanted in selector.items():
        denied, values = wanted.startswith("!"), _values(wanted)
        if (labels.get(key) in values) == denied:
            return False
    return True


def _values(wanted: str) -> set[str]:
    text = wanted.removeprefix("!")
    return {value.strip() for value in text[3:-1].split(",")} if text.startswith("in(") else {text}


def _size(demand: Demand) -> tuple[float, float, float]:
    """Sorts the largest first."""
    return (
        -sum(bundle.gpus for bundle in demand.bundles),
        -sum(bundle.cpus for bundle in demand.bundles),
        -sum(bundle.memory for bundle in demand.bundles),
    )


def _placed(demand: Demand, nodes: Sequence[_Node]) -> bool:
    before = [node.state() for node in nodes]
    if demand.strategy in ("PACK", "STRICT_PACK"):
        for node in nodes:
            if all(node.take(bundle) for bundle in demand.bundles):
                return True
            _undo(nodes, before)
        if demand.strategy == "STRICT_PACK":
            return False
    turns = count()
    for bundle in demand.bundles:
        turn = next(turns)
        if demand.strategy == "STRICT_SPREAD":
            choice = [node for node, state in zip(nodes, before, strict=True) if node.state() == state]
        elif demand.strategy == "SPREAD":
            choice = [*nodes[turn % max(1, len(nodes)) :], *nodes[: turn % max(1, len(nodes))]]
        else:
            choice = list(nodes)
        if not any(node.take(bundle) for node in choice):
            _undo(nodes, before)
            return False
    return True


def _undo(nodes: Sequence[_Node], before: Sequence[tuple[float, int | None, list[float]]]) -> None:
    for node, state in zip(nodes, before, strict=True):
        node.restore(state)


def _reason(demand: Demand, nodes: Sequence[_Node], cluster: ClusterShape) -> str:
    if not nodes:
        wanted = ", ".join(f"{key}: {value}" for key, value in demand.labels.items())
        return f"no node of {cluster.name} has the labels {{{wanted}}}"
    largest = max(demand.bundles, key=lambda bundle: (bundle.gpus, bundle.cpus, bundle.memory))
    fresh = [_Node(group) for group in {id(node.group): node.group for node in nodes}.values()]
    if not any(node.take(largest) for node in fresh):
        return f"no node that it may use has {asked(largest)}"
    several = len(demand.bundles) > 1
    if several and demand.strategy == "STRICT_PACK" and not _placed(demand, [_Node(node.group) for node in nodes]):
        return f"no one node has {len(demand.bundles)} times {asked(largest)}, as STRICT_PACK wants"
    if several and demand.strategy == "STRICT_SPREAD" and len(nodes) < len(demand.bundles):
        return f"STRICT_SPREAD wants {len(demand.bundles)} nodes, and there are {len(nodes)} that it may use"
    times = f"{len(demand.bundles)} times " if several else ""
    count = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    return f"{times}{asked(largest)} are not left beside the others on the {count} that it may use"


def asked(bundle: Bundle) -> str:
    """`2 CPUs, 1 GPU, 2.5 GiB`."""
    parts = [f"{bundle.cpus:g} CPU{'' if bundle.cpus == 1 else 's'}"]
    if bundle.gpus:
        parts.append(f"{bundle.gpus:g} GPU{'' if bundle.gpus == 1 else 's'}")
    if bundle.memory:
        parts.append(f"{bundle.memory / 2**30:.1f} GiB")
    return ", ".join(parts)
