"""`orpo-ray traces`: what is printed, as text and as JSON, and what is refused."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Call
from tests.unit.report.traced import answers, rows, write_traced_run


def test_traces_are_printed_with_what_is_known_of_them(call: Call) -> None:
    write_traced_run(Path("runs"))
    ended = call("traces", "toy", "--source", "live", "--limit", "1")
    assert ended.code == 0
    head, prompt, text, *_ = ended.out.splitlines()
    assert head.startswith(f"live prompt {rows()[0].id}, sample 0  wrong, kept  ")
    assert head.endswith("epoch 1, step 1, version 0")
    assert prompt.endswith("?")
    assert text == answers(rows()[0])[2]


def test_pairs_are_printed_side_by_side(call: Call) -> None:
    write_traced_run(Path("runs"))
    lines = call("traces", "toy", "--pairs", "--limit", "1").out.splitlines()
    right, _, wrong = answers(rows()[0])
    assert any(right in line and wrong in line and line.index(right) < line.index(wrong) for line in lines)


def test_json_is_one_object_a_line(call: Call) -> None:
    write_traced_run(Path("runs"))
    lines = [json.loads(line) for line in call("traces", "toy", "--json", "--verdict", "right").out.splitlines()]
    assert len(lines) == 6
    assert {line["verdict"] for line in lines} == {"right"}


def test_an_export_is_counted(call: Call) -> None:
    write_traced_run(Path("runs"))
    ended = call("traces", "toy", "--pairs", "--epoch", "2", "--export", "pairs.parquet")
    assert ended.out == "pairs.parquet: 2 pairs\n"
    assert Path("pairs.parquet").is_file()


def test_nothing_that_fits_is_said(call: Call) -> None:
    write_traced_run(Path("runs"))
    assert "nothing fits" in call("traces", "toy", "--search", "xyzzy").out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--verdict", "good"], "--verdict good: take right, wrong, unparsed"),
        (["--source", "student"], "--source student: take teacher, initial, live, none"),
        (["--overlap", "much"], "--overlap much: give a number or a range"),
        (["--export", "rows.xls"], "take .jsonl, .parquet, .csv"),
    ],
)
def test_a_mistake_is_one_message(call: Call, options: list[str], message: str) -> None:
    write_traced_run(Path("runs"))
    ended = call("traces", "toy", *options)
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_an_unknown_run_is_named(call: Call) -> None:
    assert "no run of this name" in call("traces", "nobody").err
