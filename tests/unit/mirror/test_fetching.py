"""A run brought down from its mirror: whole, in an order that never leaves half of one, and without what is not whole there."""

import json
import os
from pathlib import Path

import pytest

from orpo_ray.errors import InputError
from orpo_ray.mirror.fetching import Fetcher, set_aside
from orpo_ray.mirror.index import read_index, read_note
from orpo_ray.mirror.sending import Sent
from orpo_ray.phases.attempt import begin_attempt
from orpo_ray.weights.published import IncompleteVersionError, check_published
from tests.unit.mirror.made_up import MadeUp
from tests.unit.phases.test_attempt import GEOMETRY, INITIAL, LocalBoard


@pytest.fixture
def run(tmp_path: Path) -> MadeUp:
    """A mirrored run with two checkpoints."""
    run = MadeUp(tmp_path)
    run.write_run()
    run.send()
    run.train(4)
    run.write(
        "evaluations/epoch-001-test.json", json.dumps({"step": 2, "path": str(run.layout.weights / "v000002-a001")})
    )
    run.send()
    return run


@pytest.fixture
def other(run: MadeUp, tmp_path: Path) -> MadeUp:
    return run.elsewhere(tmp_path / "other")


def test_a_fresh_machine_gets_what_was_sent(run: MadeUp, other: MadeUp) -> None:
    assert other.fetch() == []
    told = ("run.json", "evaluations/", "checkpoints/step-000002/orpo", "checkpoints/step-000004/orpo", "events")
    sent = {name: text for name, text in run.files().items() if not name.startswith(told)}
    assert {name: text for name, text in other.files().items() if not name.startswith(told)} == sent
    part = Path("teacher-k1") / "part-000000.parquet"
    assert (other.storage / "traces" / part).read_text() == "traces of the teacher"


def test_paths_in_its_files_begin_with_the_storage_that_they_are_on_now(other: MadeUp) -> None:
    other.fetch()
    state = json.loads(other.layout.state.read_text())
    assert state["phases"]["TEACH"]["result"]["path"] == str(other.layout.traces("teacher", "k1"))
    checkpoint = check_published(other.layout.checkpoints / "step-000004")
    assert checkpoint["version_path"] == str(other.layout.weights / "v000004-a001")
    evaluation = json.loads((other.layout.evaluations / "epoch-001-test.json").read_text())
    assert evaluation["path"] == str(other.layout.weights / "v000002-a001")


def test_what_came_down_is_not_sent_up_again(run: MadeUp, other: MadeUp) -> None:
    """But for the files that tell where others lie."""
    other.fetch()
    index = run.index()
    changed = ["run.json", "evaluations/epoch-001-test.json"]
    changed += [f"checkpoints/step-{step}/orpo_ray_version.json" for step in ("000002", "000004")]
    assert other.send() == Sent(4, sum(other.layout.run.joinpath(name).stat().st_size for name in changed))
    assert {path for path in index.files if index.files[path] != run.index().files[path]} == set(changed)


def test_on_the_same_path_nothing_is_sent_again(run: MadeUp) -> None:
    kept = run.files()
    run.layout.run.rename(run.storage / "gone")
    again = MadeUp(run.root, run.storage, run.store)
    again.fetch()
    assert again.send() == Sent(0, 0)
    assert {name: text for name, text in again.files().items() if name != "events.jsonl"} == {
        name: text for name, text in kept.items() if name != "events.jsonl"
    }


def test_run_json_comes_last(other: MadeUp, run: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is there is there whole: a start after a cut brings it down again."""
    put: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (put.append(str(new)), replace(old, new)))
    other.fetch()
    names = [name for name in put if not name.endswith("mirror.json")]
    assert names[-1] == str(other.layout.state)
    manifests = {str(other.layout.traces(source, "k1") / "manifest.json") for source in ("student", "teacher")}
    assert set(names[-3:-1]) == manifests


def test_a_cut_leaves_no_run_and_the_next_call_goes_on(other: MadeUp) -> None:
    other.store.fails = ["read " + str(other.root / "mirror/demo/files/weights/v000004")]
    fetcher = Fetcher(other.place, other.layout, other.index())
    with pytest.raises(OSError, match="could not read"):
        fetcher.fetch(lambda: None)
    assert not other.layout.state.exists()
    other.store.fails = ["read " + str(other.root / "mirror/demo/files/checkpoints/step-000002")]
    assert fetcher.fetch(lambda: None) == []
    assert other.layout.state.exists()


def spoil(run: MadeUp, path: str, text: str | None) -> None:
    file = run.root / "mirror" / "demo" / "files" / run.index().files[path].object
    file.unlink() if text is None else file.write_text(text)


@pytest.mark.parametrize("text", [None, "half", "moments 5"])
def test_a_checkpoint_that_is_not_whole_is_left_out_and_the_one_before_is_there(
    run: MadeUp, other: MadeUp, text: str | None
) -> None:
    spoil(run, "checkpoints/step-000004/optimizer.pt", text)
    (said,) = other.fetch()
    assert said.startswith("checkpoints/step-000004 is not whole in file:///mirror/demo")
    assert sorted(path.name for path in other.layout.checkpoints.iterdir()) == ["step-000002"]
    assert check_published(other.layout.checkpoints / "step-000002")["step"] == 2


def test_a_version_that_is_not_whole_is_left_out(run: MadeUp, other: MadeUp) -> None:
    spoil(run, "weights/v000004-a001/model.safetensors", "half")
    (said,) = other.fetch()
    assert "weights/v000004-a001 is not whole" in said
    with pytest.raises(IncompleteVersionError):
        check_published(other.layout.weights / "v000004-a001")


@pytest.mark.parametrize(
    ("path", "step"),
    [("checkpoints/step-000004/optimizer.pt", 2), ("weights/v000004-a001/model.safetensors", 2), (None, 4)],
)
def test_the_next_attempt_goes_on_from_what_is_whole(
    run: MadeUp, other: MadeUp, path: str | None, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real start of an attempt, with the real board, on what came down; without Ray."""
    if path is not None:
        spoil(run, path, "half")
    other.fetch()
    monkeypatch.setattr("orpo_ray.phases.attempt.answered", lambda answer, limit_s: answer)
    attempt = begin_attempt(other.layout, GEOMETRY, INITIAL, LocalBoard())
    assert (attempt.start.step, attempt.start.number) == (step, 2)
    assert attempt.current.path == str(other.layout.weights / f"v{step:06d}-a001")
    assert other.layout.metrics.read_text().count("\n") == step


@pytest.mark.parametrize("path", ["run.json", "pairs/source.arrow", "ledger/attempt-001-rank-0.jsonl"])
def test_without_what_nothing_can_replace_the_run_is_refused(run: MadeUp, other: MadeUp, path: str) -> None:
    spoil(run, path, "x")
    with pytest.raises(InputError, match=f"lacks {path} as it was sent"):
        other.fetch()
    assert not other.layout.state.exists()


def test_what_another_state_left_here_goes(other: MadeUp) -> None:
    other.write("checkpoints/step-000099/optimizer.pt", "of an earlier attempt to bring the run down")
    other.fetch()
    assert not list((other.layout.checkpoints / "step-000099").iterdir())


def test_traces_that_runs_share_are_not_written_over(other: MadeUp) -> None:
    store = other.layout.traces("teacher", "k1")
    store.mkdir(parents=True)
    (store / "manifest.json").write_text('{"of": "another run here"}')
    other.fetch()
    assert [file.read_text() for file in store.iterdir()] == ['{"of": "another run here"}']


def test_an_index_may_not_name_what_lies_outside_of_the_run(run: MadeUp) -> None:
    file = run.root / "mirror" / "demo" / "index.json"
    file.write_text(file.read_text().replace("pairs/source.arrow", "../../bashrc"))
    with pytest.raises(InputError, match=r"'\.\./\.\./bashrc' is no path of a run's file"):
        read_index(run.place)


def test_too_small_a_disk_is_said_before_anything_comes(other: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "free")
    monkeypatch.setattr("orpo_ray.mirror.fetching.shutil.disk_usage", lambda _: usage(10))
    with pytest.raises(InputError, match=r"has 0\.0 GiB free, and the run in file:///mirror/demo"):
        Fetcher(other.place, other.layout, other.index()).check_room()


def test_a_run_is_set_aside_but_for_its_lock(run: MadeUp) -> None:
    before = run.files()
    aside = set_aside(run.layout)
    assert [path.name for path in run.layout.run.iterdir()] == ["lock"]
    assert (aside.parent, aside.name.startswith(".demo-superseded-")) == (run.storage, True)
    assert (aside / "run.json").read_text() == before["run.json"]
    assert read_note(aside / "mirror.json").number == 2
