"""A run's traces and pairs are read as they were sampled, filtered as asked, and written whole."""

import csv
import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rouge_score.rouge_scorer import RougeScorer

from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import InputError
from orpo_ray.report.browse import PairRow, RunTraces, TraceRow
from orpo_ray.report.filters import Filters, Range
from orpo_ray.report.rows_file import write_rows
from tests.unit.report.finished import write_state
from tests.unit.report.traced import answers, rows, tokens, write_traced_run


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return write_traced_run(tmp_path)


@pytest.fixture
def opened(layout: RunLayout) -> RunTraces:
    return RunTraces.open(layout)


def test_all_traces_come_source_by_source(opened: RunTraces) -> None:
    traces = list(opened.traces())
    assert Counter(trace.source for trace in traces) == {"teacher": 8, "initial": 4, "live": 2}
    assert [trace.source for trace in traces] == ["teacher"] * 8 + ["initial"] * 4 + ["live"] * 2
    assert Counter((trace.source, trace.verdict) for trace in traces) == {
        ("teacher", "right"): 6, ("teacher", "wrong"): 2, ("initial", "wrong"): 2, ("initial", "unparsed"): 2,
        ("live", "wrong"): 2,
    }  # fmt: skip


def test_a_live_trace_is_decoded_and_judged_anew(opened: RunTraces) -> None:
    whole, cut = opened.traces(["live"])
    assert (whole.text, whole.verdict, whole.truncated) == (answers(rows()[0])[2], "wrong", False)
    assert (whole.epoch, whole.step, whole.version, whole.tokens) == (1, 1, 0, len(tokens(whole.text)))
    assert (cut.epoch, cut.step, cut.version, cut.truncated) == (2, 2, 1, True)
    assert cut.prompt == opened.task.prompt(rows()[0]) if opened.task else False


def test_a_teacher_s_trace_is_as_long_as_the_student_sees_it(opened: RunTraces) -> None:
    for trace in opened.traces(["teacher"]):
        assert trace.tokens == len(tokens(trace.text))


def test_overlap_is_the_highest_with_another_kept_trace(opened: RunTraces) -> None:
    right, again, repeated, _ = [trace for trace in opened.traces(["teacher"]) if trace.prompt_id == rows()[0].id]
    scorer = RougeScorer(["rougeL"])
    between = scorer.score(right.text, again.text)["rougeL"].fmeasure
    assert right.overlap == again.overlap == pytest.approx(between, abs=1e-6)
    assert repeated.overlap == 1.0
    assert next(trace.overlap for trace in opened.traces(["initial"])) is None


def test_pairs_come_in_the_stream_s_order_without_padding(opened: RunTraces) -> None:
    pairs = list(opened.pairs())
    assert [(pair.row, pair.pair, pair.step, pair.epoch) for pair in pairs] == [
        (0, 0, 1, 1), (0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, 1), (2, 0, 2, 2), (2, 1, 2, 2),
    ]  # fmt: skip
    assert [pair.source for pair in pairs[::2]] == ["live", "initial", "live"]
    assert [pair.trained for pair in pairs] == [True] * 4 + [False] * 2
    assert [pair.rejected_logp for pair in pairs[::2]] == [-0.5, None, -0.5]
    assert (pairs[0].chosen, pairs[0].rejected) == (answers(rows()[0])[0], answers(rows()[0])[2])
    expected = RougeScorer(["rougeL"]).score(pairs[0].chosen, pairs[0].rejected or "")["rougeL"].fmeasure
    assert pairs[0].overlap == pytest.approx(expected, abs=1e-6)


def test_without_the_task_s_rows_what_they_would_say_is_not_known(layout: RunLayout) -> None:
    record = json.loads(layout.state.read_text())
    record["config"]["task"]["name"] = "no.such.module:Task"
    write_state(layout, config=record["config"])
    (live, _), pair = RunTraces.open(layout).traces(["live"]), next(RunTraces.open(layout).pairs())
    assert (live.prompt, live.verdict, live.text) == (None, None, answers(rows()[0])[2])
    assert pair.verdict is None
    assert pair.prompt == "x"


def test_a_judge_is_not_asked_again(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads(layout.state.read_text())
    record["config"]["task"]["judge"] = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "rubric": "Right?"}
    write_state(layout, config=record["config"])
    live = next(RunTraces.open(layout).traces(["live"]))
    assert live.verdict is None


def test_a_run_whose_traces_are_gone_says_so(layout: RunLayout) -> None:
    for file in layout.traces("teacher", "k").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="traces of this run are gone"):
        list(RunTraces.open(layout).traces(["teacher"]))


def test_a_run_that_has_no_traces_yet_shows_none(layout: RunLayout) -> None:
    write_state(layout, phases={})
    assert list(RunTraces.open(layout).traces(["teacher", "initial"])) == []


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (Filters(), 14),
        (Filters(source="live"), 2),
        (Filters(verdict="unparsed"), 2),
        (Filters(kept=False, source="teacher"), 4),
        (Filters(truncated=True), 1),
        (Filters(version=Range(1, None)), 1),
        (Filters(epoch=Range(1, 2)), 2),
        (Filters(overlap=Range(0.99, None)), 2),
        (Filters(search="GAINS AND"), 2),
        (Filters(search="no such words"), 0),
        (Filters(tokens=Range(None, 1)), 0),
        (Filters(kept=False, verdict="wrong"), 2),
    ],
)
def test_filters_leave_what_fits(opened: RunTraces, filters: Filters, count: int) -> None:
    assert sum(filters.match(trace) for trace in opened.traces()) == count


def test_filters_of_pairs_look_at_the_rejected_trace(opened: RunTraces) -> None:
    pairs = list(opened.pairs())
    assert sum(Filters(truncated=True).match(pair) for pair in pairs) == 2
    assert sum(Filters(verdict="right").match(pair) for pair in pairs) == 0
    assert sum(Filters(tokens=Range(1, 1000)).match(pair) for pair in pairs) == 6
    sft = replace(pairs[0], source="none", rejected=None, rejected_tokens=None, overlap=None, verdict=None)
    assert not Filters(overlap=Range(0, 1)).match(sft)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [("3", [3], [2, 4]), ("3..5", [3, 5], [2, 6]), ("3..", [3, 99], [2]), ("..0.5", [0, 0.5], [0.51])],
)
def test_a_range_holds_its_ends(text: str, inside: list[float], outside: list[float]) -> None:
    range_ = Range.parse("--overlap", text)
    assert all(map(range_.holds, inside))
    assert not any(map(range_.holds, outside))
    assert not range_.holds(None)


@pytest.mark.parametrize("text", ["", "..", "a", "5..3", "1..2..3"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--tokens .*: give a number or a range"):
        Range.parse("--tokens", text)


@pytest.mark.parametrize("kind", [TraceRow, PairRow])
def test_each_format_holds_the_same(opened: RunTraces, tmp_path: Path, kind: type) -> None:
    found = list(opened.traces() if kind is TraceRow else opened.pairs())
    for suffix in (".jsonl", ".parquet", ".csv"):
        assert write_rows(tmp_path / f"rows{suffix}", kind, iter(found)) == len(found)
    expected = [asdict(row) for row in found]
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == expected
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == expected
    with (tmp_path / "rows.csv").open(newline="") as opened_csv:
        read = list(csv.DictReader(opened_csv))
    assert list(read[0]) == [field.name for field in fields(kind)]
    assert [line["prompt_id"] for line in read] == [row["prompt_id"] for row in expected]


def test_nothing_at_all_is_still_a_whole_file(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "none.parquet", PairRow, []) == 0
    assert pq.read_table(tmp_path / "none.parquet").column_names == [field.name for field in fields(PairRow)]


def test_an_unknown_suffix_and_a_place_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"take \.jsonl, \.parquet, \.csv"):
        write_rows(tmp_path / "rows.xlsx", TraceRow, [])
    with pytest.raises(InputError, match="cannot be written: No such file"):
        write_rows(tmp_path / "nowhere" / "rows.jsonl", TraceRow, [])


def test_a_file_that_fails_half_way_leaves_the_former_one(opened: RunTraces, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("former")

    def broken() -> Iterator[TraceRow]:
        yield next(opened.traces())
        raise InputError("gone")

    with pytest.raises(InputError, match="gone"):
        write_rows(file, TraceRow, broken())
    assert file.read_text() == "former"
    assert [path.name for path in tmp_path.glob("rows*")] == ["rows.jsonl"]


def test_memory_does_not_grow_with_what_is_written(opened: RunTraces, tmp_path: Path) -> None:
    trace = next(opened.traces())

    def peak(count: int) -> int:
        tracemalloc.start()
        write_rows(tmp_path / "rows.parquet", TraceRow, (replace(trace, sample=sample) for sample in range(count)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few = peak(2_000)
    assert peak(20_000) < 1.5 * few
