"""A pass: what is sent, in which order, and what the mirror is worth when it is cut short."""

from pathlib import Path

import pytest

from orpo_ray.mirror import contents
from orpo_ray.mirror.sending import Sent, unneeded
from tests.unit.mirror.made_up import MadeUp

EVERYTHING = [
    "attempts.json",
    "checkpoints/step-000002/optimizer.pt",
    "checkpoints/step-000002/orpo_ray_version.json",
    "events.jsonl",
    "journal/step-000002/rows-2.parquet",
    "ledger/attempt-001-rank-0.jsonl",
    "metrics.jsonl",
    "pairs/source.arrow",
    "run.json",
    "traces/student-k1/manifest.json",
    "traces/student-k1/part-000000.parquet",
    "traces/teacher-k1/manifest.json",
    "traces/teacher-k1/part-000000.parquet",
    "weights/v000002-a001/model.safetensors",
    "weights/v000002-a001/orpo_ray_version.json",
]


@pytest.fixture
def run(tmp_path: Path) -> MadeUp:
    run = MadeUp(tmp_path)
    run.write_run()
    return run


def objects(run: MadeUp) -> dict[str, str]:
    """What the store holds of files, with and without a name in the index."""
    home = run.root / "mirror" / "demo" / "files"
    return {str(file.relative_to(home)): file.read_text() for file in home.rglob("*") if file.is_file()}


def test_the_mirror_has_all_that_a_fresh_machine_needs_and_no_more(run: MadeUp) -> None:
    run.send()
    assert sorted(run.index().files) == EVERYTHING == sorted(objects(run))


def test_a_half_written_line_stays_here(run: MadeUp) -> None:
    run.send()
    assert objects(run)["events.jsonl"] == '{"kind": "run.start"}\n'


def test_what_has_not_changed_is_not_sent_again(run: MadeUp) -> None:
    assert run.send().files == len(EVERYTHING)
    before = run.index()
    assert run.send() == Sent(0, 0)
    assert run.index() == before


def test_a_file_that_was_only_touched_is_not_sent_again(run: MadeUp) -> None:
    run.send()
    run.write("pairs/source.arrow", "pairs")
    assert run.send() == Sent(0, 0)


def test_only_what_changed_is_sent(run: MadeUp) -> None:
    run.send()
    run.write("attempts.json", '{"started": 2}')
    assert run.send() == Sent(1, 14)
    entry = run.index().files["attempts.json"]
    assert objects(run)[entry.object] == '{"started": 2}'


def test_the_index_comes_last(run: MadeUp) -> None:
    run.send()
    written = [path.rpartition("/demo/")[2] for path in run.store.written]
    assert written[-1] == "index.json.partial"
    assert sorted(name.removeprefix("files/") for name in written[1:-1]) == EVERYTHING


def test_a_mirror_that_was_cut_short_holds_what_it_held_before(run: MadeUp, tmp_path: Path) -> None:
    """Also of files that have changed since: what the index names is never written over."""
    run.send()
    before, held = run.index(), run.files()
    run.train(4, prune=2)
    run.write("attempts.json", '{"started": 2}')
    run.store.fails = ["write " + str(run.root / "mirror/demo/files/checkpoints/step-000004/orpo_ray_version.json")]
    with pytest.raises(OSError, match="could not write"):
        run.send()
    assert run.index() == before
    run.store.fails = []
    other = run.elsewhere(tmp_path / "other")
    assert other.fetch() == []
    names = [name for name in held if not name.startswith(("events", "run.json", "checkpoints/step-000002/orpo"))]
    assert {name: other.files()[name] for name in names} == {name: held[name] for name in names}


def test_what_was_sent_before_a_fault_is_not_sent_again(run: MadeUp) -> None:
    with run.sender() as sender:
        run.store.fails = ["write " + str(run.root / "mirror/demo/index.json")]
        with pytest.raises(OSError, match="could not write"):
            sender.send((), lambda: None)
        run.store.fails = []
        assert sender.send((), lambda: None) == Sent(0, 0)
    assert sorted(run.index().files) == EVERYTHING


def test_what_was_removed_here_is_removed_there_once_the_index_says_so(run: MadeUp) -> None:
    run.send()
    run.train(4)
    run.train(6, prune=2)
    run.send()
    assert not [name for name in objects(run) if "000002" in name and not name.startswith("journal")]
    assert set(objects(run)) == run.index().objects()


def test_what_could_not_be_removed_is_by_the_next_driver(run: MadeUp) -> None:
    run.send()
    run.train(4, prune=2)
    run.store.fails = ["remove " + str(run.root / "mirror/demo/files")]
    run.send()
    assert set(objects(run)) > run.index().objects()
    run.store.fails = []
    run.write("attempts.json", '{"started": 2}')
    run.send()
    assert set(objects(run)) == run.index().objects()


def test_of_two_checkpoints_that_were_not_sent_only_the_newest_is(run: MadeUp) -> None:
    """What waits is never more than one, however slow the network is."""
    run.train(4)
    run.train(6)
    run.send()
    assert {path.split("/")[1] for path in run.index().files if path.startswith("checkpoints")} == {"step-000006"}


def test_the_checkpoint_before_stays_in_the_mirror_while_it_stays_here(run: MadeUp) -> None:
    run.send()
    run.train(4)
    run.send()
    assert {path.split("/")[1] for path in run.index().files if path.startswith("checkpoints")} == {
        "step-000002",
        "step-000004",
    }


def test_a_checkpoint_that_is_not_whole_here_is_not_sent(run: MadeUp) -> None:
    run.train(4)
    (run.layout.checkpoints / "step-000004" / "optimizer.pt").write_text("half")
    run.send()
    assert "checkpoints/step-000002/optimizer.pt" in run.index().files
    assert not [path for path in run.index().files if path.startswith("checkpoints/step-000004")]


def test_a_checkpoint_that_is_pruned_while_it_is_on_its_way_arrives(
    run: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = run.store.open_output_stream

    def prunes_first(path: str) -> object:
        if path.endswith("step-000002/optimizer.pt"):
            run.train(4, prune=2)
        return opens(path)

    monkeypatch.setattr(run.store, "open_output_stream", prunes_first)
    run.send()
    assert objects(run)["checkpoints/step-000002/optimizer.pt"] == "moments 2"
    assert not run.layout.outgoing.exists()


def test_a_checkpoint_that_is_pruned_before_it_is_on_its_way_is_looked_for_again(
    run: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = contents.contents

    def prunes_after(*arguments: object) -> object:
        items = looked(*arguments)  # type: ignore[arg-type]
        if run.step == 2:
            run.train(4, prune=2)
        return items

    monkeypatch.setattr("orpo_ray.mirror.sending.contents", prunes_after)
    run.send()
    assert objects(run)["checkpoints/step-000004/optimizer.pt"] == "moments 4"


def test_without_hard_links_files_are_sent_as_they_lie(run: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("orpo_ray.mirror.sending.os.link", unsupported)
    run.send()
    assert sorted(run.index().files) == EVERYTHING


def test_a_file_that_changes_while_it_is_sent_ends_the_pass(run: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    opens = run.store.open_output_stream

    def changes_first(path: str) -> object:
        if path.endswith("source.arrow"):
            (run.layout.pairs / "source.arrow").write_text("PAIRS")
        return opens(path)

    monkeypatch.setattr(run.store, "open_output_stream", changes_first)
    with pytest.raises(OSError, match=r"pairs/source\.arrow changed while it was sent"):
        run.send()


def test_a_look_that_raises_calls_the_pass_off(run: MadeUp) -> None:
    def called_off() -> None:
        raise InterruptedError("stop")

    with run.sender() as sender, pytest.raises(InterruptedError):
        sender.send((), called_off)
    assert run.place.read("index.json") is None


def test_traces_in_the_making_are_kept_too(run: MadeUp) -> None:
    making = run.layout.storage / "traces" / "teacher-k2.partial"
    making.mkdir()
    (making / "part-000000.parquet").write_text("a block")
    (making / ".part-000001.parquet.1234").write_text("half a block")
    with run.sender() as sender:
        sender.send([run.layout.traces("teacher", "k2")], lambda: None)
    assert [path for path in run.index().files if "k2" in path] == ["traces/teacher-k2.partial/part-000000.parquet"]


def test_versions_that_end_an_epoch_stay_for_the_evaluation(run: MadeUp) -> None:
    directory = run.layout.weights / "v000001-a001"
    (directory).mkdir()
    (directory / "orpo_ray_version.json").write_text('{"number": 1, "step": 1, "epoch": 1, "files": {}}')
    run.send()
    assert "weights/v000001-a001/orpo_ray_version.json" in run.index().files


@pytest.mark.parametrize(
    ("unnamed", "files", "directories"),
    [
        (["a/b/1", "a/b/2"], set(), {"a/b"}),
        (["a/c/1"], {"a/c/1"}, set()),
        (["x/y/1", "x/2"], set(), {"x"}),
        (["1"], {"1"}, set()),
    ],
)
def test_directories_go_as_a_whole(unnamed: list[str], files: set[str], directories: set[str]) -> None:
    assert unneeded(unnamed, ["a/c/2", "3"]) == (files, directories)
