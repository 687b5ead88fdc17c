"""Lines of a run's files: the same whether they are read here or printed there."""

import json
from pathlib import Path

import pytest

from orpo_ray.cli.jobs import print_lines
from orpo_ray.client import ClusterError
from orpo_ray.client.files import What, parse_printed, read_lines
from orpo_ray.client.result import run_result
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import TraceDraft
from tests.unit.report.finished import write_finished_run


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Of a finished run with metrics, events, and the teacher's traces."""
    layout = write_finished_run(tmp_path, "demo")
    layout.metrics.write_text('{"step": 1}\n{"step": 2, "loss": 0.5}\n')
    layout.events.write_text('{"kind": "run.start"}\n{"kind": "note", "text": "Grüße"}\n')
    draft = TraceDraft(layout.traces("teacher", "k1"))
    draft.write(0, [Trace("1", 0, "5 \u2028 6", None, "right", False, True, False, "teacher", "m")], 1)
    draft.finish(1, "k1", {})
    record = json.loads(layout.state.read_text())
    record["phases"]["TEACH"]["result"] |= {"key": "k1", "path": str(layout.traces("teacher", "k1"))}
    layout.state.write_text(json.dumps(record))
    return layout.storage


def test_what_is_printed_there_is_what_is_read_here(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what in What:
        print("Running entrypoint for job x: orpo-ray read")
        print_lines("demo", what, storage, None)
        assert parse_printed(capsys.readouterr().out) == list(read_lines(storage, "demo", what))


def test_a_limit(storage: Path) -> None:
    assert len(list(read_lines(storage, "demo", What.METRICS))) > 1
    assert len(list(read_lines(storage, "demo", What.METRICS, 1))) == 1


def test_a_run_that_has_not_begun_has_no_lines(tmp_path: Path) -> None:
    assert [list(read_lines(tmp_path, "demo", what)) for what in What] == [[]] * len(What)


def test_a_line_in_the_writing_is_left_out(storage: Path) -> None:
    file = storage / "demo" / "metrics.jsonl"
    before = list(read_lines(storage, "demo", What.METRICS))
    file.write_text(file.read_text() + '{"step": 99, "lo')
    assert list(read_lines(storage, "demo", What.METRICS)) == before


def test_a_reading_job_that_broke(storage: Path) -> None:
    with pytest.raises(ClusterError, match="the job said: orpo-ray: no such option"):
        parse_printed("Running entrypoint\norpo-ray: no such option\n")


def test_the_result_is_what_show_prints(storage: Path) -> None:
    (report,) = read_lines(storage, "demo", What.REPORT)
    result = run_result(json.loads(json.dumps(report)))
    assert result.path == report["student"]["path"]
    assert [(row.split, row.epoch) for row in result.evaluations] == [
        (row["split"], row["epoch"]) for row in report["evaluations"]
    ]
    assert [row.rate for row in result.evaluations] == pytest.approx(
        [row["rate"] for row in report["evaluations"]], abs=1e-6
    )
