"""Batches, blocks, ranks and epochs: the edges at which the stream would hang or lose rows (FACTS.md)."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.config import Geometry, parse_config
from orpo_ray.config.geometry import default_block_rows, geometry_problems
from orpo_ray.errors import ConfigError
from tests.unit.config.data import changed


def geometry(**changes: Any) -> Geometry:
    shape = {"global_batch": 32, "ranks": 2, "block_rows": 8, "prompts": 600, "epochs": 5, "refresh_steps": None}
    return Geometry(**{**shape, **changes})


batches = st.integers(1, 512)
ranks = st.integers(1, 16)
rows = st.integers(1, 64)


@given(batches, ranks, st.none() | rows)
def test_what_is_accepted_divides_the_global_batch(batch: int, ranks: int, block: int | None) -> None:
    """Otherwise the splitter waits for rows that the gate holds back."""
    if geometry_problems(batch, ranks, block):
        return
    block = block or default_block_rows(batch, ranks)
    assert batch % (block * ranks) == 0


@given(batches, ranks, rows)
def test_what_is_refused_would_not_divide(batch: int, ranks: int, block: int) -> None:
    divides = batch % ranks == 0 and batch % (block * ranks) == 0
    assert (not geometry_problems(batch, ranks, block)) == divides


@given(st.integers(1, 64), ranks)
def test_the_default_block_always_fits(share: int, ranks: int) -> None:
    block = default_block_rows(share * ranks, ranks)
    assert 1 <= block <= 16
    assert share % block == 0
    assert not any(share % larger == 0 for larger in range(block + 1, min(share, 16) + 1))


@given(batches, ranks, rows)
def test_a_configuration_is_refused_just_where_its_geometry_is(batch: int, ranks: int, block: int) -> None:
    data = changed({"train.global_batch": batch, "train.workers": ranks, "resources.block_rows": block})
    problems = geometry_problems(batch, ranks, block)
    if problems:
        with pytest.raises(ConfigError) as refused:
            parse_config(data)
        assert refused.value.problems == problems
    else:
        shape = parse_config(data).geometry(prompts=100)
        assert shape.global_batch % (shape.block_rows * shape.ranks) == 0


@given(batches, ranks, ranks, st.none() | rows)
def test_each_size_of_an_elastic_group_takes_whole_blocks_of_one_length(
    batch: int, one: int, other: int, block: int | None
) -> None:
    """The journal's blocks are found again by their rows, so their length must not follow the size."""
    workers, fewest = max(one, other), min(one, other)
    data = changed({"train.global_batch": batch, "train.workers": workers, "train.workers_min": fewest})
    data["resources"] = {"block_rows": block} if block else {}
    if geometry_problems(batch, workers, block) or geometry_problems(batch, fewest, block):
        with pytest.raises(ConfigError):
            parse_config(data)
        return
    config = parse_config(data)
    assert {workers, fewest} <= set(config.world_sizes)
    for size in range(fewest, workers + 1):
        assert (size in config.world_sizes) == (not geometry_problems(batch, size, block))
    for size in config.world_sizes:
        shape = config.sized(size, 1).geometry(prompts=100)
        assert (shape.ranks, shape.block_rows) == (size, config.block_rows)
        assert batch % (shape.block_rows * size) == 0


@given(batches, st.integers(1, 5_000), st.integers(1, 7), st.none() | st.integers(1, 500))
def test_an_epoch_is_whole_global_batches_and_holds_each_prompt_once(
    batch: int, prompts: int, epochs: int, refresh: int | None
) -> None:
    shape = geometry(global_batch=batch, ranks=1, block_rows=1, prompts=prompts, epochs=epochs, refresh_steps=refresh)
    assert shape.rows_per_epoch % batch == 0
    assert 0 <= shape.rows_per_epoch - prompts < batch
    assert (shape.rows, shape.steps) == (epochs * shape.rows_per_epoch, epochs * shape.steps_per_epoch)
    assert sum(shape.real_rows(step) for step in range(shape.steps_per_epoch)) == prompts
    assert shape.real_rows(0) == shape.real_rows(shape.steps_per_epoch)


@given(batches, st.integers(1, 2_000), st.integers(1, 5), st.none() | st.integers(1, 80))
def test_versions_rise_by_one_at_a_time_and_each_epochs_end_has_one(
    batch: int, prompts: int, epochs: int, refresh: int | None
) -> None:
    shape = geometry(global_batch=batch, ranks=1, block_rows=1, prompts=prompts, epochs=epochs, refresh_steps=refresh)
    versions = [shape.version_at(step) for step in range(shape.steps + 1)]
    assert versions[0] == 0
    assert {after - before for before, after in itertools.pairwise(versions)} <= {0, 1}
    for epoch in range(1, epochs + 1):
        end = epoch * shape.steps_per_epoch
        assert versions[end] == versions[end - 1] + 1 == epoch * shape.versions_per_epoch


def test_the_demos_shape() -> None:
    """By hand: 600 prompts in batches of 32 are 19 steps, the last of 24 rows; refreshed every 5 steps and at the end."""
    shape = geometry(refresh_steps=5)
    assert (shape.steps_per_epoch, shape.rows_per_epoch, shape.steps, shape.rows) == (19, 608, 95, 3040)
    assert (shape.real_rows(17), shape.real_rows(18)) == (32, 24)
    assert [shape.version_at(step) for step in (0, 4, 5, 14, 15, 18, 19, 23, 24, 95)] == [0, 0, 1, 2, 3, 3, 4, 4, 5, 20]
    assert geometry().version_at(94) == 4
    assert geometry().version_at(95) == 5


@pytest.mark.parametrize("hanging", [{"global_batch": 24, "ranks": 2, "block_rows": 8}])
def test_the_batch_that_hung(hanging: dict[str, int]) -> None:
    """FACTS.md, 'Four ways to hang', (2): 24 rows, 8-row blocks, 2 ranks hung at row 0; 4-row blocks were fine."""
    assert geometry_problems(**hanging)
    assert not geometry_problems(**{**hanging, "block_rows": 4})
