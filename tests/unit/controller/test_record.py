"""run.json and events.jsonl."""

import json
import threading
from pathlib import Path

import pytest

from orpo_ray.controller.events import EventLog
from orpo_ray.controller.record import (
    Beginning,
    PhaseRecord,
    PhaseState,
    RunRecord,
    read_record,
    write_record,
)
from orpo_ray.errors import InputError


def a_record() -> RunRecord:
    return RunRecord(
        name="toy",
        orpo_ray="0.1.0",
        command="orpo-ray run toy.yaml",
        state=PhaseState.RUNNING,
        started="2023-11-14T22:13:20.000Z",
        finished=None,
        config={"sampling": {"k": 8}},
        beginning=Beginning("k3", {"sampling.k": 8}, {"task.test_size": 200}, {"TEACH": "k1"}),
        phases={"TEACH": PhaseRecord(PhaseState.DONE, "k1", "2023-11-14T22:13:20.000Z", result={"prompts": 3})},
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    assert read_record(file) is None
    write_record(file, a_record())
    assert read_record(file) == a_record()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_write_that_fails_leaves_the_record_before_it(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write_record(file, a_record())
    broken = a_record()
    broken.config = {"not": {"json"}}
    with pytest.raises(TypeError):
        write_record(file, broken)
    assert read_record(file) == a_record()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phases": {}}', '{"phases": {"TEACH": {"state": "asleep"}}}'])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"run\.json"):
        read_record(file)


def test_events_are_lines_of_json_from_any_thread(tmp_path: Path) -> None:
    file, heard = tmp_path / "events.jsonl", []
    with EventLog(file, [lambda kind, fields: heard.append((kind, fields))], lambda: 0.5, "toy") as say:
        threads = [threading.Thread(target=say, args=("note",), kwargs={"text": f"nº {n}"}) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    say("note", text="too late")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert lines[0].keys() == {"time", "run", "phase", "kind", "text"}
    assert (lines[0]["run"], lines[0]["phase"]) == ("toy", None)
    assert lines[0]["time"] == "1970-01-01T00:00:00.500Z"
    assert {line["text"] for line in lines} == {f"nº {n}" for n in range(20)} == {fields["text"] for _, fields in heard}
