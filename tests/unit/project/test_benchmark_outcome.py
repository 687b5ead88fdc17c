"""What every benchmark ends with: a table, JSON, and sides in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import outcome, own_process


def test_a_result_is_kept_as_json_where_a_file_is_named(tmp_path: Path) -> None:
    outcome.keep({"ratio": 1.5}, tmp_path / "result.json")
    outcome.keep({"ratio": 1.5}, None)
    assert json.loads((tmp_path / "result.json").read_text()) == {"ratio": 1.5}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_table_shows_small_figures_with_three_digits(capsys: pytest.CaptureFixture[str]) -> None:
    outcome.show("title", ("name", "value"), [("few", 1.23456), ("many", 12345.6)], ["a note"])
    text = capsys.readouterr().out
    assert all(shown in text for shown in ("title", "1.23", "12,346", "a note"))


def test_a_side_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        own_process.result_of("benchmarks.scale", no_such_option=1)


def test_processor_time_is_that_of_living_children_too() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"
    before = own_process.cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = own_process.cpu_seconds()
        child.communicate(b"\n")
    assert during - before >= 0.25
