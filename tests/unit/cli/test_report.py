"""`orpo-ray report`: where it is written, and what is refused."""

from pathlib import Path

from tests.unit.cli.conftest import Call
from tests.unit.report.traced import write_traced_run


def test_it_lies_beside_the_run(call: Call) -> None:
    layout = write_traced_run(Path("runs"))
    ended = call("report", "toy")
    assert (ended.code, ended.out) == (0, "runs/toy/report.html\n")
    assert (layout.run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_markdown_to_the_standard_output(call: Call) -> None:
    write_traced_run(Path("runs"))
    ended = call("report", "toy", "--markdown", "-o", "-")
    assert ended.out.startswith("# Run toy\n")
    assert "<svg" not in ended.out


def test_a_place_that_cannot_be_written_is_one_message(call: Call) -> None:
    write_traced_run(Path("runs"))
    ended = call("report", "toy", "-o", "nowhere/report.html")
    assert ended.code == 2
    assert "--output nowhere/report.html: cannot be written" in ended.err


def test_an_unknown_run_is_named(call: Call) -> None:
    ended = call("report", "nobody")
    assert ended.code == 2
    assert "no run of this name" in ended.err
