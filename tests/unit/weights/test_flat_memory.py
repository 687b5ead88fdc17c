"""What is held in memory does not grow with the data: the objects themselves, without a clock or a process."""

import pickle

from orpo_ray.config import Geometry
from orpo_ray.pairs import Plan
from orpo_ray.weights import Shelf, StalenessGate, Version

FEW, MANY = 10_000, 1_000_000


def geometry(prompts: int) -> Geometry:
    return Geometry(512, 2, 256, prompts=prompts, epochs=3, refresh_steps=4)


def bytes_of(thing: object) -> int:
    return len(pickle.dumps(thing))


def test_plan_and_gate_are_as_large_for_a_million_prompts() -> None:
    for made in (lambda g: StalenessGate(g, 1), lambda g: Plan(0, (0.5,) * 3, g, str)):
        few, many = made(geometry(FEW)), made(geometry(MANY))
        assert bytes_of(many) <= bytes_of(few) + 8  # the numbers themselves are longer
    plan = Plan(0, (0.5,) * 3, geometry(MANY), str)
    before = bytes_of(plan)
    assert len({plan.row(index).position for index in range(20_000)}) == 20_000
    assert bytes_of(plan) == before


def test_the_shelf_does_not_grow_with_what_was_published_and_read() -> None:
    shelf = Shelf(Version(0, "v0", 0), lasting=frozenset(["evaluator"]))
    shelf.start_attempt(1, Version(0, "v0", 0))
    sizes = []
    for number in range(1, 5_000):
        for reader in ("sampler-a", "sampler-b"):
            shelf.hold(reader, shelf.newest.path)
        former = shelf.newest.path
        shelf.publish(1, Version(number, f"v{number:06d}", number))
        for reader in ("sampler-a", "sampler-b"):
            shelf.release(reader, former)
        shelf.pin({number - 1, number})
        shelf.take_removable()
        sizes.append(bytes_of(shelf))
    assert sizes[-1] <= sizes[10] + 16
    assert shelf.holds() == []
