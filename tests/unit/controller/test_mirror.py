"""A run with a mirror, with dummy phases: on a new machine, ended early, and where its mirror is not whole in the end."""

import json
import shutil
from pathlib import Path

import pytest

from orpo_ray.config import RunConfig
from orpo_ray.controller import ORDER, Interrupted, PhaseState
from orpo_ray.controller.record import read_record
from orpo_ray.errors import InputError
from orpo_ray.mirror import MirrorError
from orpo_ray.phases.context import RunContext
from tests.unit.controller.dummies import Toy, config

ALL = list(ORDER)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "runs")


@pytest.fixture
def mirrored(tmp_path: Path) -> RunConfig:
    return config(storage={"mirror": (tmp_path / "mirror").as_uri(), "mirror_every_s": 0.05})


def test_on_an_empty_disk_a_finished_run_is_found(toy: Toy, mirrored: RunConfig) -> None:
    assert toy.run(mirrored) == ALL
    shutil.rmtree(toy.storage)
    toy.events.clear()
    assert toy.run(mirrored) == []
    notes = [fields["text"] for kind, fields in toy.events if kind == "note"]
    assert len(notes) == 1
    assert notes[0].startswith("storage.mirror: brought down from file:")


def test_on_an_empty_disk_an_interrupted_run_goes_on(toy: Toy, mirrored: RunConfig) -> None:
    def stop(context: RunContext) -> None:
        raise KeyboardInterrupt

    toy.phases["SEED"].does = stop
    with pytest.raises(Interrupted):
        toy.run(mirrored)
    toy.phases["SEED"].does = lambda context: None
    shutil.rmtree(toy.storage)
    assert toy.run(mirrored) == ["SEED", "DISTILL", "EVALUATE", "EXPORT"]


def test_the_mirror_has_the_run_to_its_last_event(toy: Toy, mirrored: RunConfig, tmp_path: Path) -> None:
    toy.run(mirrored)
    index = json.loads((tmp_path / "mirror" / "toy" / "index.json").read_text())
    home = tmp_path / "mirror" / "toy" / "files"
    events = (home / index["files"]["events.jsonl"][0]).read_text().splitlines()
    assert json.loads(events[-1])["kind"] == "run.done"
    assert json.loads((home / index["files"]["run.json"][0]).read_text())["state"] == "done"


def test_a_mirror_that_cannot_be_used_ends_it_before_anything_is_made(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"storage\.mirror: file:.*/file/x cannot be used"):
        toy.run(config(storage={"mirror": (tmp_path / "file" / "x").as_uri()}))
    assert not toy.storage.exists()


def test_a_mirror_that_is_not_whole_fails_the_run_and_the_same_command_mends_it(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orpo_ray.mirror.follow.backoff", lambda failures: 0.01)
    mirrored = config(
        storage={"mirror": (tmp_path / "mirror").as_uri(), "mirror_every_s": 0.05}, limits={"upload_s": 0.1}
    )
    files = tmp_path / "mirror" / "toy" / "files"

    def in_the_way(context: RunContext) -> None:
        """A file where the mirror wants a directory: all that is below it fails."""
        files.with_name("kept").mkdir(parents=True)
        if files.exists():
            files.rename(files.with_name("kept") / "files")
        files.write_text("")

    toy.phases["EXPORT"].does = in_the_way
    with pytest.raises(MirrorError) as error:
        toy.run(mirrored)
    assert "is not whole" in str(error.value)
    assert error.value.__notes__ == ["What is finished is kept. Go on with\n  orpo-ray run toy.yaml"]
    record = read_record(toy.layout(mirrored).state)
    assert record is not None
    assert (record.state, record.error) == (PhaseState.FAILED, str(error.value))
    assert {phase.state for phase in record.phases.values()} == {PhaseState.DONE}
    files.unlink()
    shutil.rmtree(tmp_path / "mirror" / "toy")
    assert toy.run(mirrored) == []
    assert files.is_dir()


def test_a_run_without_a_mirror_leaves_nothing_of_one(toy: Toy) -> None:
    toy.run(config())
    assert not toy.layout(config()).mirrored.exists()
