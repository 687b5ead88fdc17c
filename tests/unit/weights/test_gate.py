"""The gate's invariant, by simulation: a row is never staler than allowed, and no row is refused that might run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.config import Geometry
from orpo_ray.weights import StalenessGate


def gate(prompts: int, refresh: int | None, lag: int, batch: int = 8, epochs: int = 3) -> StalenessGate:
    return StalenessGate(Geometry(batch, 2, 4, prompts, epochs, refresh), lag)


@given(prompts=st.integers(1, 100), refresh=st.none() | st.integers(1, 9), lag=st.integers(0, 3))
def test_limit_and_admits_say_the_same(prompts: int, refresh: int | None, lag: int) -> None:
    tested = gate(prompts, refresh, lag)
    for version in range(6):
        limit = tested.limit(version)
        assert tested.admits(limit - 1, version)
        assert not tested.admits(limit, version)


@given(prompts=st.integers(1, 60), refresh=st.none() | st.integers(1, 9), lag=st.integers(0, 3))
def test_a_stream_never_waits_for_itself(prompts: int, refresh: int | None, lag: int) -> None:
    """Training runs to the end with samplers that take rows as soon as they are admitted, whole blocks at a time."""
    tested = gate(prompts, refresh, lag)
    geometry = tested.geometry
    sampled: list[int] = []
    version = 0
    for step in range(geometry.steps):
        while len(sampled) < geometry.rows and tested.admits(len(sampled) + geometry.block_rows - 1, version):
            sampled += [version] * geometry.block_rows
        batch = range(step * geometry.global_batch, (step + 1) * geometry.global_batch)
        assert len(sampled) >= batch.stop, "the batch waits for a version that only its own training can publish"
        for row in batch:
            assert 0 <= tested.staleness(row, sampled[row]) <= lag
        version = geometry.version_at(step + 1)
    assert version == geometry.versions_per_epoch * geometry.epochs


def test_staleness_zero_is_the_papers_strict_order() -> None:
    tested = gate(prompts=24, refresh=None, lag=0)
    assert [tested.admits(row, 0) for row in (23, 24)] == [True, False]
    assert [tested.admits(row, 1) for row in (24, 47, 48)] == [True, True, False]


@pytest.mark.parametrize(("steps", "versions"), [(1, [0, 1, 2, 3, 4, 5, 6]), (2, [0, 0, 1, 2, 2, 3, 4])])
def test_an_epoch_always_ends_with_a_version(steps: int, versions: list[int]) -> None:
    # 24 prompts in batches of 8: 3 steps an epoch. A refresh of 2 steps publishes after steps 2 and 3 of each epoch.
    geometry = Geometry(8, 2, 4, 24, 2, steps)
    assert [geometry.version_at(step) for step in range(7)] == versions
