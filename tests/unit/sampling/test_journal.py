"""Blocks are found as they were sampled, by their rows alone; a dead timeline's are dropped."""

from pathlib import Path

import pyarrow as pa
import pytest

from orpo_ray.pairs import PairGroup, from_table, to_table
from orpo_ray.sampling.journal import Journal

BATCH = 8


def group(index: int, version: int) -> PairGroup:
    return PairGroup(
        index=index,
        epoch=1,
        prompt_id=f"prompt-{index}",
        coin="live",
        policy="live",
        version=version,
        real=True,
        prompt=[5, 6],
        chosen=[[7, 8, 2]],
        rejected=[[9, 2], [10, 11, 2]],
        rejected_logp=[-0.5, -1.25],
        pair_chosen=[0, 0],
        pair_rejected=[1, 0],
    )


def block(first: int, count: int, version: int) -> pa.Table:
    return to_table([group(index, version) for index in range(first, first + count)])


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", BATCH)


def test_a_block_comes_back_as_it_was_written(journal: Journal) -> None:
    table = block(4, 4, version=1)
    journal.append(4, table, version=1)
    found = journal.find(4, 4)
    assert found is not None
    assert found.schema == table.schema
    assert from_table(found) == [group(index, 1) for index in range(4, 8)]


def test_only_the_very_same_rows_are_found(journal: Journal) -> None:
    assert journal.find(4, 4) is None
    journal.append(4, block(4, 4, version=1), version=1)
    assert journal.find(0, 4) is None
    assert journal.find(4, 2) is None  # the block's size changed between two starts
    assert journal.find(8, 4) is None


def test_a_block_sampled_twice_is_the_newer_version(journal: Journal) -> None:
    journal.append(0, block(0, 4, version=2), version=2)
    journal.append(0, block(0, 4, version=10), version=10)
    found = journal.find(0, 4)
    assert found is not None
    assert {row.version for row in from_table(found)} == {10}


def test_a_file_that_a_kill_left_half_written_is_no_block(journal: Journal) -> None:
    path = journal.append(0, block(0, 4, version=1), version=1)
    path.rename(path.with_name(path.name + ".1a2b3c4d.partial"))
    assert journal.find(0, 4) is None


def test_a_dead_timeline_is_dropped_and_the_rest_is_kept(journal: Journal) -> None:
    """The checkpoint holds 2 steps and version 1: what version 2 sampled for step 2 and later never happened."""
    kept = [journal.append(first, block(first, 4, version), version) for first, version in ((8, 2), (16, 1), (24, 0))]
    dead = [journal.append(first, block(first, 4, version), version) for first, version in ((20, 2), (28, 3))]
    half = dead[0].with_name(dead[0].name + ".1a2b3c4d.partial")
    half.write_bytes(b"PAR1")
    assert journal.drop_dead_timeline(step=2, version=1) == 2
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in [*dead, half])


def test_an_empty_journal_has_no_dead_timeline(journal: Journal) -> None:
    assert journal.drop_dead_timeline(step=0, version=0) == 0
