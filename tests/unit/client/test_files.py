"""Lines of a run's files: the same whether they are read here or printed there."""

import json
from pathlib import Path

import pytest

from orpo_ray.cli.jobs import print_lines
from orpo_ray.client import ClusterError
from orpo_ray.client.files import What, parse_printed, read_lines
from orpo_ray.client.result import run_result
from orpo_ray.errors import InputError
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import TraceDraft
from tests.unit.report.finished import write_finished_run


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Of a finished run with metrics, events, the teacher's traces and the initial student's."""
    layout = write_finished_run(tmp_path, "demo")
    layout.metrics.write_text('{"step": 1}\n{"step": 2, "loss": 0.5}\n')
    layout.events.write_text('{"kind": "run.start"}\n{"kind": "note", "text": "Grüße"}\n')
    record = json.loads(layout.state.read_text())
    # Neither store's key is the phase's own: other runs may share the traces.
    for maker, phase in (("teacher", "TEACH"), ("student", "SEED")):
        draft = TraceDraft(layout.traces(maker, "k1"))
        draft.write(0, [Trace("1", 0, "5 \u2028 6", None, "right", False, True, False, maker, "m")], 1)
        draft.finish(1, "k1", {})
        record["phases"][phase]["result"] |= {"path": str(draft.directory)}
    layout.state.write_text(json.dumps(record))
    return layout.storage


def test_what_is_printed_there_is_what_is_read_here(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what in What:
        print("Running entrypoint for job x: orpo-ray read")
        print_lines("demo", what, storage, None)
        assert parse_printed(capsys.readouterr().out) == list(read_lines(storage, "demo", what))


def test_traces_are_those_of_their_maker(storage: Path) -> None:
    assert [line["source"] for line in read_lines(storage, "demo", What.TEACHER_TRACES)] == ["teacher"]
    assert [line["source"] for line in read_lines(storage, "demo", What.STUDENT_TRACES)] == ["student"]


def test_a_phase_that_is_not_done_or_made_none_has_no_traces(storage: Path) -> None:
    state = storage / "demo" / "run.json"
    record = json.loads(state.read_text())
    record["phases"]["TEACH"]["state"] = "running"
    del record["phases"]["SEED"]["result"]["path"]  # as where the negatives are the teacher's own
    state.write_text(json.dumps(record))
    assert not list(read_lines(storage, "demo", What.TEACHER_TRACES))
    assert not list(read_lines(storage, "demo", What.STUDENT_TRACES))


def test_traces_that_are_gone(storage: Path) -> None:
    (storage / "traces" / "student-k1" / "manifest.json").unlink()
    with pytest.raises(InputError, match="the initial traces of this run are gone"):
        list(read_lines(storage, "demo", What.STUDENT_TRACES))


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
