"""The store appears whole or not at all, and a killed phase finds its finished blocks again."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orpo_ray.errors import InputError
from orpo_ray.traces.counts import TraceCounts
from orpo_ray.traces.record import SCHEMA, Trace, from_table, to_table
from orpo_ray.traces.store import MANIFEST, TraceDraft, TraceStore


def trace(prompt: str, sample: int, verdict: str = "right", **others: object) -> Trace:
    values = {"truncated": False, "kept": verdict == "right", "near_duplicate": False} | others
    return Trace(prompt, sample, f"{prompt} {sample}", None, verdict, source="teacher", model="m", **values)  # type: ignore[arg-type]


FIRST = [trace("a", 0), trace("a", 1, "wrong"), trace("b", 0, "unparsed", truncated=True)]
SECOND = [trace("c", 0), trace("c", 1, kept=False, near_duplicate=True)]


@pytest.fixture
def draft(tmp_path: Path) -> TraceDraft:
    return TraceDraft(tmp_path / "traces" / "teacher-k")


def finished(draft: TraceDraft) -> TraceStore:
    # The fourth prompt of the second block has no trace at all, as a recorded teacher may leave it.
    draft.write(0, FIRST, prompts=2)
    draft.write(1, SECOND, prompts=2)
    return draft.finish(2, "k", {"k": 2})


def test_every_field_survives_arrow_and_back() -> None:
    student = Trace(
        "p", 3, "Größe \u2028 42", [5, 6, 2], "wrong", False, True, False, "student", "abc", 0, 2**31 - 1, 0.8
    )
    assert from_table(to_table([student, FIRST[0]])) == [student, FIRST[0]]
    assert to_table([]).schema == SCHEMA


def test_counts_are_those_of_the_traces(draft: TraceDraft) -> None:
    counts = finished(draft).counts
    assert counts == TraceCounts(
        prompts=4,
        traces=5,
        right=3,
        wrong=1,
        unparsed=1,
        truncated=1,
        kept=2,
        near_duplicates=1,
        prompts_without_kept=2,
    )
    assert counts.accuracy == pytest.approx(0.6)
    assert counts.to_json()["accuracy"] == pytest.approx(0.6)
    assert TraceCounts().to_json()["accuracy"] is None


def test_prompts_come_back_in_the_order_of_blocks_however_they_were_written(draft: TraceDraft) -> None:
    draft.write(1, SECOND, 2)
    draft.write(0, FIRST, 2)
    store = draft.finish(2, "k", {})
    assert list(store.prompts()) == [("a", FIRST[:2]), ("b", FIRST[2:]), ("c", SECOND)]


def test_a_store_is_found_by_its_key_and_only_once_it_is_whole(draft: TraceDraft) -> None:
    draft.write(0, FIRST, 2)
    assert TraceStore.find(draft.directory, "k") is None
    with pytest.raises(ValueError, match=r"blocks \[1\] of 2"):
        draft.finish(2, "k", {})
    finished(draft)
    found = TraceStore.find(draft.directory, "k")
    assert found is not None
    assert found.manifest["made_from"] == {"k": 2}
    assert TraceStore.find(draft.directory, "other") is None
    assert not draft.partial.exists()


def test_a_later_start_finds_the_blocks_of_a_killed_one(draft: TraceDraft) -> None:
    assert (draft.blocks(), draft.counts()) == (set(), TraceCounts())
    draft.write(1, SECOND, 2)
    later = TraceDraft(draft.directory)
    assert later.blocks() == {1}
    assert later.counts().traces == 2


def test_a_part_that_was_being_written_when_the_kill_came_is_no_part(
    draft: TraceDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            draft.write(0, FIRST, 2)
    assert [file.name[:5] for file in draft.partial.iterdir()] == [".part"]
    assert draft.blocks() == set()
    store = finished(draft)
    assert sorted(file.name for file in store.directory.iterdir()) == [
        MANIFEST, "part-000000.parquet", "part-000001.parquet",
    ]  # fmt: skip


def test_a_block_written_twice_is_there_once(draft: TraceDraft) -> None:
    draft.write(0, FIRST, 2)
    draft.write(0, FIRST, 2)
    assert draft.counts().traces == 3


def test_two_runs_that_finish_the_same_key_both_get_the_store(draft: TraceDraft) -> None:
    finished(draft)
    again = finished(TraceDraft(draft.directory))
    assert again.counts.traces == 5
    assert not draft.partial.exists()


def test_what_is_no_store_is_not_overwritten(draft: TraceDraft) -> None:
    draft.directory.mkdir(parents=True)
    (draft.directory / "thesis.txt").write_text("three years")
    with pytest.raises(InputError, match="in the way of a trace store"):
        finished(draft)
    assert (draft.directory / "thesis.txt").read_text() == "three years"


def test_parts_are_plain_parquet_that_other_tools_read(draft: TraceDraft) -> None:
    store = finished(draft)
    table = pq.read_table(sorted(store.directory.glob("part-*.parquet")))
    assert table.num_rows == 5
    assert table.column_names == SCHEMA.names
    assert json.loads((store.directory / MANIFEST).read_text())["counts"]["traces"] == 5
