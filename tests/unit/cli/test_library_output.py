"""What libraries print while a run works goes beside the run, not into its progress."""

import logging
import sys
from pathlib import Path

import pytest

from orpo_ray.cli.library_output import library_output


def test_prints_and_warnings_go_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = sys.stdout
    file = tmp_path / "libraries.log"
    with library_output(file):
        print("(raylet) a warning")
        logging.getLogger("some.library").warning("another")
        print("ours", file=ours)
        handler = logging.StreamHandler()
    assert capsys.readouterr() == ("ours\n", "")
    assert "(raylet) a warning\n" in file.read_text()
    handler.emit(logging.LogRecord("late", logging.ERROR, "", 0, "a logger may keep the stream", None, None))
    assert "keep the stream" not in file.read_text()


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with library_output(tmp_path / "runs" / "libraries.log"):
        print("nobody hears this")
    assert list(tmp_path.iterdir()) == []


def test_with_debug_nothing_is_held_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORPO_RAY_DEBUG", "1")
    with library_output(tmp_path / "libraries.log"):
        print("a warning")
    assert capsys.readouterr().out == "a warning\n"
