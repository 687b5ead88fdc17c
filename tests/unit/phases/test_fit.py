"""Actors on nodes, laid out by hand."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.config.place import Strategy
from orpo_ray.errors import InputError
from orpo_ray.phases.fit import Bundle, ClusterShape, Demand, Misfit, NodeGroup, check_places, matches, misfits

GIB = 2**30


def cluster(*groups: NodeGroup) -> ClusterShape:
    return ClusterShape("the cluster", groups)


def test_what_fits_leaves_nothing_over() -> None:
    nodes = cluster(NodeGroup("a", 2, cpus=4, gpus=1, memory=8 * GIB))
    four = [Demand(f"sampler {n}", (Bundle(2.0, 0.5, 4 * GIB),)) for n in range(4)]
    assert misfits(four, nodes) == []
    fifth = Demand("one more", (Bundle(0.1),))
    assert misfits([*four, fifth], nodes) == [
        Misfit("one more", "0.1 CPUs are not left beside the others on the 2 nodes that it may use")
    ]


def test_a_share_of_a_gpu_is_of_one_gpu() -> None:
    """Two GPUs with 0.4 left each hold no 0.6."""
    nodes = cluster(NodeGroup("a", 1, cpus=9, gpus=2))
    demands = [Demand(name, (Bundle(1.0, gpus),)) for name, gpus in (("a", 0.6), ("b", 0.6), ("c", 0.6))]
    assert [misfit.demand for misfit in misfits(demands, nodes)] == ["c"]
    assert misfits([*demands[:2], Demand("d", (Bundle(1.0, 0.4),))], nodes) == []
    assert [misfit.demand for misfit in misfits([*demands[:1], Demand("e", (Bundle(1.0, 2.0),))], nodes)] == ["a"]


def test_shares_fill_one_gpu_before_the_next() -> None:
    nodes = cluster(NodeGroup("a", 1, cpus=9, gpus=2))
    halves = [Demand(f"half {n}", (Bundle(1.0, 0.5),)) for n in range(2)]
    assert misfits([*halves, Demand("whole", (Bundle(1.0, 1.0),))], nodes) == []


def test_memory_that_is_not_known_is_not_compared() -> None:
    assert misfits([Demand("a", (Bundle(1.0, 0.0, 99 * GIB),))], cluster(NodeGroup("a", 1, cpus=1))) == []


@pytest.mark.parametrize(
    ("strategy", "nodes", "reason"),
    [
        ("PACK", 1, "2 times 1 CPU, 2 GPUs are not left beside the others on the 1 node that it may use"),
        ("PACK", 2, None),
        ("STRICT_PACK", 2, "no one node has 2 times 1 CPU, 2 GPUs, as STRICT_PACK wants"),
        ("SPREAD", 2, None),
        ("STRICT_SPREAD", 2, None),
        ("STRICT_SPREAD", 1, "STRICT_SPREAD wants 2 nodes, and there are 1 that it may use"),
    ],
)
def test_bundles_are_laid_out_as_the_strategy_says(strategy: Strategy, nodes: int, reason: str | None) -> None:
    demand = Demand("train workers", (Bundle(1.0, 2.0),) * 2, {}, strategy)
    found = misfits([demand], cluster(NodeGroup("a", nodes, cpus=8, gpus=2)))
    assert [misfit.reason for misfit in found] == ([] if reason is None else [reason])


def test_a_group_that_finds_no_place_takes_none() -> None:
    """The two workers do not fit; the sampler must not be refused for what they would have taken."""
    nodes = cluster(NodeGroup("a", 1, cpus=3))
    workers = Demand("train workers", (Bundle(2.0),) * 2)
    assert [misfit.demand for misfit in misfits([workers, Demand("sampler", (Bundle(3.0),))], nodes)] == [
        "train workers"
    ]


def test_labels_are_named_where_no_node_has_them() -> None:
    nodes = cluster(NodeGroup("a", 1, cpus=8, labels={"orpo-ray.io/role": "sampler"}))
    demand = Demand("teacher replica", (Bundle(1.0),), {"orpo-ray.io/role": "teacher"})
    assert misfits([demand], nodes) == [
        Misfit("teacher replica", "no node of the cluster has the labels {orpo-ray.io/role: teacher}", certain=True)
    ]


def config(**resources: Any) -> RunConfig:
    return parse_config(
        {
            "task": {"name": "arithmetic"},
            "teacher": {"backend": "recorded", "path": "x.jsonl"},
            "student": {"model": "models/student"},
            "resources": resources,
        }
    )


def test_a_run_whose_labels_no_node_has_is_refused_before_it_waits_for_ever() -> None:
    nodes = cluster(NodeGroup("a", 1, cpus=8, labels={"orpo-ray.io/role": "sampler"}))
    check_places(config(sampler_labels={"orpo-ray.io/role": "sampler"}), nodes)
    with pytest.raises(InputError) as refused:
        check_places(config(trainer_labels={"orpo-ray.io/role": "trainer"}), nodes)
    assert str(refused.value) == (
        "resources that find no place\n"
        "  - DISTILL: train workers: no node of the cluster has the labels {orpo-ray.io/role: trainer}"
    )


def test_what_another_order_might_place_is_not_refused() -> None:
    """Two samplers, the evaluator, two workers and a data task of one CPU each on two nodes of three: full, but not too full."""
    check_places(config(samplers=2), cluster(NodeGroup("a", 2, cpus=3)))
    check_places(config(samplers=2), cluster(NodeGroup("a", 1, cpus=3)))  # too few, which is counted elsewhere
    with pytest.raises(InputError, match=r"train workers: no one node has 2 times 1 CPU, 1\.5 GiB, as"):
        check_places(config(trainer_strategy="STRICT_PACK"), cluster(NodeGroup("a", 9, cpus=1)))


def test_who_may_go_anywhere_leaves_room_to_who_may_not() -> None:
    nodes = cluster(NodeGroup("a", 1, cpus=1, labels={"role": "a"}), NodeGroup("b", 1, cpus=1))
    demands = [Demand("anywhere", (Bundle(1.0),)), Demand("only a", (Bundle(1.0),), {"role": "a"})]
    assert misfits(demands, nodes) == []


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("a", {"pool": "a"}, True),
        ("a", {}, False),
        ("!a", {"pool": "b"}, True),
        ("!a", {}, True),
        ("!a", {"pool": "a"}, False),
        ("in(a, b)", {"pool": "b"}, True),
        ("in(a,b)", {"pool": "c"}, False),
        ("!in(a, b)", {"pool": "c"}, True),
        ("!in(a, b)", {"pool": "a"}, False),
    ],
)
def test_selectors_as_ray_reads_them(selector: str, labels: dict[str, str], expected: bool) -> None:
    assert matches({"pool": selector}, labels) is expected


@given(
    asked=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0])), max_size=5),
    there=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=3),
)
def test_what_is_said_to_fit_does(asked: list[tuple[int, float]], there: list[tuple[int, int]]) -> None:
    """Every way to lay the actors on nodes is tried; where all are said to fit, one of them must work."""
    demands = [Demand(str(n), (Bundle(float(cpus), gpus),)) for n, (cpus, gpus) in enumerate(asked)]
    groups = [NodeGroup(str(n), 1, float(cpus), gpus) for n, (cpus, gpus) in enumerate(there)]
    if not misfits(demands, cluster(*groups)):
        assert any(_holds(asked, there, choice) for choice in product(range(len(there)), repeat=len(asked)))


def _holds(asked: list[tuple[int, float]], there: list[tuple[int, int]], choice: tuple[int, ...]) -> bool:
    for node, (cpus, gpus) in enumerate(there):
        mine = [what for what, where in zip(asked, choice, strict=True) if where == node]
        halves = sum(gpu == 0.5 for _, gpu in mine)
        if sum(cpu for cpu, _ in mine) > cpus or sum(gpu == 1 for _, gpu in mine) + -(-halves // 2) > gpus:
            return False
    return True
