"""The mirror over a start: which of two states goes on, what is said while it cannot be reached, and how the run ends then."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.errors import InputError
from orpo_ray.mirror import Mirror, MirrorError
from orpo_ray.mirror.claim import DRIVER, TakenOverError
from orpo_ray.mirror.index import read_note
from orpo_ray.mirror.place import Place
from tests.unit.mirror.made_up import MadeUp

DOWN = ("write", "read")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits seconds waits hundredths; another machine's driver is taken for dead at once."""
    monkeypatch.setattr("orpo_ray.mirror.follow.backoff", lambda failures: 0.01)
    monkeypatch.setattr("orpo_ray.mirror.claim.WATCH_S", 0.0)
    monkeypatch.setattr("orpo_ray.mirror.pool._LOOK_S", 0.01)


@pytest.fixture
def run(tmp_path: Path) -> MadeUp:
    run = MadeUp(tmp_path)
    run.write_run()
    return run


class Said:
    """What was said, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    def wait_for(self, kind: str) -> dict[str, Any]:
        until(lambda: any(said == kind for said, _ in self.events))
        return next(fields for said, fields in self.events if said == kind)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


def mirror(run: MadeUp, *, every_s: float = 0.01, limit_s: float = 20) -> Mirror:
    prefix = Place("file:///mirror", run.store, str(run.root / "mirror"))  # type: ignore[arg-type]
    return Mirror("file:///mirror", run.layout, every_s, limit_s, prefix)


@contextmanager
def opened(run: MadeUp, **limits: float) -> Iterator[tuple[Mirror, list[str]]]:
    own = mirror(run, **limits)
    own.check()
    with own.opened() as brought:
        yield own, brought


def follow_to_its_end(run: MadeUp) -> list[str]:
    """A start that has nothing to do; what it says was brought down."""
    with opened(run) as (own, brought), own.following(Said()):
        own.settle()
    return brought


class TestWhichStateGoesOn:
    def test_a_mirror_that_is_empty_gets_what_is_here(self, run: MadeUp) -> None:
        assert follow_to_its_end(run) == []
        assert "checkpoints/step-000002/optimizer.pt" in run.index().files

    def test_a_machine_without_the_run_gets_the_mirrors(self, run: MadeUp, tmp_path: Path) -> None:
        follow_to_its_end(run)
        other = run.elsewhere(tmp_path / "other")
        assert follow_to_its_end(other) == ["storage.mirror: brought down from file:///mirror/demo, as of write 1"]
        assert "checkpoints/step-000002/optimizer.pt" in other.files()

    def test_what_went_on_here_goes_on_here(self, run: MadeUp) -> None:
        follow_to_its_end(run)
        run.train(4)
        assert follow_to_its_end(run) == []
        assert "checkpoints/step-000004/optimizer.pt" in run.index().files

    def test_a_mirror_that_went_on_elsewhere_is_the_run(self, run: MadeUp, tmp_path: Path) -> None:
        """What was here is kept aside, also what it had done since."""
        follow_to_its_end(run)
        other = run.elsewhere(tmp_path / "other")
        follow_to_its_end(other)
        other.train(4)
        follow_to_its_end(other)
        run.train(6)
        (said,) = follow_to_its_end(run)
        aside = next(run.storage.glob(".demo-superseded-*"))
        assert said == (
            "storage.mirror: file:///mirror/demo went on elsewhere (write 3; this machine knew write 1), so it is the run; brought "
            f"down, and what was here is now in {aside}"
        )
        assert "checkpoints/step-000004/optimizer.pt" in run.files()
        assert "checkpoints/step-000006/optimizer.pt" not in run.files()
        assert (aside / "checkpoints" / "step-000006" / "optimizer.pt").exists()

    def test_a_driver_that_died_between_index_and_note_knows_its_own_index(self, run: MadeUp) -> None:
        follow_to_its_end(run)
        note = read_note(run.layout.mirrored)
        note.number, note.commits = 0, ["before", *note.commits]
        note.save(run.layout.mirrored)
        assert follow_to_its_end(run) == []

    def test_a_bucket_that_was_set_back_gets_what_is_here(self, run: MadeUp) -> None:
        follow_to_its_end(run)
        index = run.root / "mirror" / "demo" / "index.json"
        before = index.read_text()
        run.write("attempts.json", '{"started": 2}')
        follow_to_its_end(run)
        index.write_text(before)
        assert follow_to_its_end(run) == []
        assert run.index().number == 2

    def test_two_runs_of_one_name_are_not_mixed(self, run: MadeUp, tmp_path: Path) -> None:
        follow_to_its_end(run)
        other = run.elsewhere(tmp_path / "other")
        other.write_run()
        with pytest.raises(InputError, match=r"holds a run demo that does not come from .*/other/demo"):
            follow_to_its_end(other)
        assert run.place.read(DRIVER) is None, "the claim is given back"


class TestBeside:
    def test_what_comes_is_sent_while_the_run_works(self, run: MadeUp) -> None:
        said = Said()
        with opened(run) as (own, _), own.following(said):
            assert said.wait_for("mirror.sent")["checkpoint"] == "step-000002"
            run.train(4)
            until(lambda: [kind for kind, _ in said.events].count("mirror.sent") == 2)
            own.settle()
        assert "checkpoints/step-000004/optimizer.pt" in run.index().files

    def test_traces_that_a_phase_says_it_makes_are_sent(self, run: MadeUp) -> None:
        making = run.layout.storage / "traces" / "teacher-k2.partial"
        making.mkdir()
        (making / "part-000000.parquet").write_text("a block")
        with opened(run) as (own, _), own.following(Said()):
            own.listen("traces.store", {"path": str(run.layout.traces("teacher", "k2"))})
            own.settle()
        assert "traces/teacher-k2.partial/part-000000.parquet" in run.index().files

    def test_a_mirror_that_is_away_is_told_of_once_and_so_is_its_return(self, run: MadeUp) -> None:
        said = Said()
        with opened(run, limit_s=0.2) as (own, _), own.following(said):
            said.wait_for("mirror.sent")
            run.store.fails = [*DOWN]
            run.write("attempts.json", '{"started": 2}')
            behind = said.wait_for("mirror.behind")
            time.sleep(0.3)
            run.store.fails = []
            said.wait_for("mirror.caught_up")
            own.settle()
        assert behind["waits_for"] == "attempts.json"
        assert behind["seconds"] >= 0.2
        assert behind["error"] == "AWS Error NETWORK_CONNECTION: could not write"
        assert [kind for kind, _ in said.events] == ["mirror.sent", "mirror.behind", "mirror.caught_up"]

    def test_nothing_of_the_run_waits_for_a_mirror_that_hangs(
        self, run: MadeUp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The body, as training does, goes on while a write takes as long as it likes."""
        begun, goes_on = threading.Event(), threading.Event()
        opens = run.store.open_output_stream

        def hangs(path: str) -> object:
            begun.set()
            goes_on.wait(20)
            return opens(path)

        with opened(run) as (own, _):
            monkeypatch.setattr(run.store, "open_output_stream", hangs)
            with own.following(Said()):
                assert begun.wait(20)
                run.train(4)
                assert run.place.read("index.json") is None
                goes_on.set()
                own.settle()
        assert "checkpoints/step-000004/optimizer.pt" in run.index().files

    def test_one_that_was_taken_for_dead_sends_no_more_and_says_so(self, run: MadeUp, tmp_path: Path) -> None:
        said = Said()
        with opened(run) as (own, _), own.following(said):
            said.wait_for("mirror.sent")
            other = run.elsewhere(tmp_path / "other")
            with opened(other):
                run.write("attempts.json", '{"started": 2}')
                assert "was taken over by another driver" in said.wait_for("note")["text"]
                with pytest.raises(TakenOverError):
                    own.settle()
        assert run.index().number == 1


def ends_with(run: MadeUp, error: type[BaseException], does: Callable[[Mirror, Said], None], **limits: float) -> Said:
    """A start of which `does` is the work, and which ends with `error`."""
    said = Said()

    def start() -> None:
        with opened(run, **limits) as (own, _), own.following(said):
            does(own, said)

    with pytest.raises(error) as raised:
        start()
    said("raised", error=raised.value)
    return said


class TestTheEnd:
    def test_a_mirror_that_is_not_whole_is_an_error_with_what_is_missing(self, run: MadeUp) -> None:
        def settles(own: Mirror, said: Said) -> None:
            run.store.fails = [f"write {run.root}/mirror/demo/files/metrics.jsonl"]
            run.write("metrics.jsonl", "{}\n")
            own.settle()

        error = ends_with(run, MirrorError, settles, limit_s=0.1).wait_for("raised")["error"]
        assert error.exit_code == 1
        assert str(error) == (
            "storage.mirror: file:///mirror/demo is not whole: metrics.jsonl did not get there (limits.upload_s): nothing got "
            "through for 0 s: AWS Error NETWORK_CONNECTION: could not write\n"
            f"The run is done, and whole at {run.layout.run}; the same command sends the rest"
        )

    def test_a_mirror_that_comes_back_in_time_is_waited_for(self, run: MadeUp) -> None:
        with opened(run) as (own, _), own.following(Said()):
            run.store.fails = [*DOWN]
            threading.Timer(0.2, run.store.fails.clear).start()
            own.settle()
        assert "checkpoints/step-000002/optimizer.pt" in run.index().files

    def test_a_run_that_stops_early_still_sends_what_it_has(self, run: MadeUp) -> None:
        def stops(own: Mirror, said: Said) -> None:
            said.wait_for("mirror.sent")
            run.write_state("interrupted")
            raise KeyboardInterrupt

        ends_with(run, KeyboardInterrupt, stops, every_s=1000)
        entry = run.index().files["run.json"]
        assert '"interrupted"' in (run.root / "mirror/demo/files" / entry.object).read_text()

    def test_a_run_that_stops_early_says_what_it_could_not_send_and_keeps_its_own_error(self, run: MadeUp) -> None:
        def stops(own: Mirror, said: Said) -> None:
            said.wait_for("mirror.sent")
            run.store.fails = [*DOWN]
            run.write_state("interrupted")
            raise KeyboardInterrupt

        said = ends_with(run, KeyboardInterrupt, stops, every_s=1000)
        text = "storage.mirror: file:///mirror/demo lacks the last part (AWS Error NETWORK_CONNECTION: could not write)"
        assert said.wait_for("note")["text"] == text


def test_bringing_down_goes_on_through_faults(run: MadeUp, tmp_path: Path) -> None:
    follow_to_its_end(run)
    other = run.elsewhere(tmp_path / "other")
    run.store.fails = ["read " + str(run.root / "mirror/demo/files/pairs")]
    threading.Timer(0.3, run.store.fails.clear).start()
    assert len(follow_to_its_end(other)) == 1
    assert "pairs/source.arrow" in other.files()


def test_bringing_down_ends_past_the_limit(run: MadeUp, tmp_path: Path) -> None:
    follow_to_its_end(run)
    other = run.elsewhere(tmp_path / "other")
    run.store.fails = ["read " + str(run.root / "mirror/demo/files/pairs")]
    with (
        pytest.raises(MirrorError, match=r"could not be brought down from file:///mirror/demo: nothing came for"),
        opened(other, limit_s=0.1),
    ):
        pass
    assert not other.layout.state.exists()
