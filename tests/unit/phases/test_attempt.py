"""A start goes on from the newest whole checkpoint, and nothing newer is left of the timeline that died.

The board is the real one, called without Ray.
"""

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import Geometry
from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import StaleAttemptError
from orpo_ray.pairs import PairGroup, to_table
from orpo_ray.phases.attempt import Attempt, begin_attempt
from orpo_ray.sampling.journal import Journal
from orpo_ray.training.ledger import LedgerWriter, read_ledger
from orpo_ray.weights import StalenessGate, Version
from orpo_ray.weights.board import WeightBoard
from orpo_ray.weights.published import MANIFEST, publish_directory, remove_versions, version_directory

# Two steps an epoch of 8 rows each; a version after each step.
GEOMETRY = Geometry(global_batch=8, ranks=2, block_rows=4, prompts=16, epochs=3, refresh_steps=1)
INITIAL = Version(0, "initial", step=0, epoch=0)


class LocalBoard:
    """`board.method.remote(…)` without Ray: calls the WeightBoard and gives its answer."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """As Ray does where its process died."""
        self._board = WeightBoard(INITIAL, StalenessGate(GEOMETRY, max_staleness=0))

    def __getattr__(self, method: str) -> Any:
        class Call:
            @staticmethod
            def remote(*arguments: Any) -> Any:
                return asyncio.run(getattr(self._board, method)(*arguments))

        return Call()


@pytest.fixture
def board() -> LocalBoard:
    return LocalBoard()


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[LocalBoard], Attempt]:
    monkeypatch.setattr("orpo_ray.phases.attempt.answered", lambda answer, limit_s: answer)
    run = RunLayout(tmp_path, "run")
    run.run.mkdir()
    return lambda board: begin_attempt(run, GEOMETRY, INITIAL, board)


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path, "run")


def publish(layout: RunLayout, number: int, *, attempt: int = 1) -> Path:
    directory = version_directory(layout.weights, number, attempt)
    epoch = number // 2 if number % 2 == 0 else None
    facts = {"number": number, "step": number, "epoch": epoch, "attempt": attempt}
    publish_directory(directory, lambda path: (path / "model.safetensors").write_text("weights") and None, facts)
    return directory


def checkpoint(layout: RunLayout, step: int) -> Path:
    directory = layout.checkpoints / f"step-{step:06d}"
    facts = {
        "step": step,
        "version": step,
        "version_path": str(version_directory(layout.weights, step, 1)) if step else "initial",
        "version_step": step,
        "world_size": 2,
    }
    publish_directory(directory, lambda path: (path / "states.pt").write_text("states") and None, facts)
    return directory


def sample(layout: RunLayout, first: int, version: int) -> Path:
    rows = [
        PairGroup(index, 1, f"p{index}", "live", "live", version, True, [1], [[2]], [[3]], [-1.0], [0], [0])
        for index in range(first, first + 4)
    ]
    return Journal(layout.journal, 8).append(first, to_table(rows), version)


def train(layout: RunLayout, step: int, attempt: int = 1) -> None:
    """The lines that two ranks and the metrics writer leave of a step."""
    for rank in range(2):
        first = (step - 1) * 8 + rank * 4
        writer = LedgerWriter(layout.ledger, attempt, rank)
        rows = [
            PairGroup(index, 1, f"p{index}", "live", "live", step - 1, True, [1], [[2]], [[3]], [-1.0], [0], [0])
            for index in range(first, first + 4)
        ]
        writer.append(step, rows)
        writer.close()
    with layout.metrics.open("a") as lines:
        lines.write(json.dumps({"step": step, "attempt": attempt}) + "\n")


def evaluate(layout: RunLayout, epoch: int) -> Path:
    layout.evaluations.mkdir(exist_ok=True)
    file = layout.evaluations / f"epoch-{epoch:03d}-test.json"
    file.write_text(json.dumps({"epoch": epoch, "step": epoch * 2}))
    return file


def died_in_step_4(layout: RunLayout) -> None:
    """A run that published after each of 4 steps, whose checkpoint of step 4 was cut by the kill."""
    for step in (1, 2, 3, 4):
        train(layout, step)
    for number in (1, 2, 3, 4):
        publish(layout, number)
    for step in (1, 2, 4):
        checkpoint(layout, step)
    (layout.checkpoints / "step-000004" / "states.pt").write_text("sta")
    for epoch in (0, 1, 2):
        evaluate(layout, epoch)


def test_a_first_start_begins_at_the_beginning(begin: Any, board: LocalBoard) -> None:
    attempt = begin(board)
    assert (attempt.start.number, attempt.start.step, attempt.start.checkpoint) == (1, 0, None)
    assert (attempt.current, attempt.older) == (INITIAL, [])
    assert board.attempt.remote() == attempt.start
    assert board.newest.remote() == INITIAL


def test_it_goes_on_from_the_newest_whole_checkpoint(begin: Any, layout: RunLayout, board: LocalBoard) -> None:
    died_in_step_4(layout)
    attempt = begin(board)
    assert attempt.start.step == 2
    assert attempt.start.checkpoint == str(layout.checkpoints / "step-000002")
    assert attempt.current == Version(2, str(layout.weights / "v000002-a001"), step=2, epoch=1)
    assert attempt.older == [Version(1, str(layout.weights / "v000001-a001"), step=1, epoch=None)]
    assert board.newest.remote() == attempt.current


def test_nothing_newer_is_left(begin: Any, layout: RunLayout, board: LocalBoard) -> None:
    died_in_step_4(layout)
    half = publish(layout, 5)
    half.rename(half.with_name(half.name + ".partial"))
    begin(board)
    assert sorted(path.name for path in layout.checkpoints.iterdir()) == ["step-000001", "step-000002"]
    assert sorted(path.name for path in layout.weights.iterdir()) == ["v000001-a001", "v000002-a001"]
    assert [json.loads(line)["step"] for line in layout.metrics.read_text().splitlines()] == [1, 2]
    assert sorted(path.name for path in layout.evaluations.iterdir()) == ["epoch-000-test.json", "epoch-001-test.json"]
    assert sorted(line["row"] for line in read_ledger(layout.ledger)) == list(range(16))


def test_what_the_committed_student_sampled_ahead_is_kept(begin: Any, layout: RunLayout, board: LocalBoard) -> None:
    """Rows of step 3 that version 2 sampled are replayed; those of version 3 never happened."""
    died_in_step_4(layout)
    kept = [sample(layout, first, version) for first, version in ((0, 0), (8, 1), (16, 2))]
    dead = [sample(layout, first, version) for first, version in ((20, 3), (24, 3))]
    begin(board)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in dead)


def test_starts_are_counted_over_drivers_and_older_ones_are_refused(
    begin: Any, layout: RunLayout, board: LocalBoard
) -> None:
    assert [begin(board).start.number for _ in range(2)] == [1, 2]
    assert begin(LocalBoard()).start.number == 3
    with pytest.raises(StaleAttemptError, match="attempt 1 came while attempt 2 runs"):
        board.publish.remote(1, Version(1, "v1", 1))


def test_versions_that_kept_checkpoints_need_stay(begin: Any, layout: RunLayout, board: LocalBoard) -> None:
    """A driver that has just started and dies before its first checkpoint must find the former one's version."""
    died_in_step_4(layout)
    attempt = begin(board)
    for number in (3, 4):
        gone = board.publish.remote(attempt.start.number, Version(number, f"v{number}", number))
        assert str(layout.weights / "v000002-a001") not in gone
        assert str(layout.weights / "v000001-a001") not in gone
    assert gone == ["v3"]


def test_a_checkpoint_whose_version_is_spoilt_is_passed_over_for_the_one_before(
    begin: Any, layout: RunLayout, board: LocalBoard
) -> None:
    died_in_step_4(layout)
    (layout.weights / "v000002-a001" / "model.safetensors").write_text("wei")
    attempt = begin(board)
    assert (attempt.start.step, attempt.current.number) == (1, 1)
    assert len(attempt.passed_over) == 1
    assert re.fullmatch(
        r"checkpoint step-000002 is passed over: its version is not whole "
        r"\(.*/v000002-a001/model.safetensors: 3 bytes, the manifest says 7\)",
        attempt.passed_over[0],
    )
    assert [path.name for path in layout.checkpoints.iterdir()] == ["step-000001"]
    assert [path.name for path in layout.weights.iterdir()] == ["v000001-a001"]


def test_no_weights_are_loaded_from_outside_the_run(
    begin: Any, layout: RunLayout, board: LocalBoard, tmp_path: Path
) -> None:
    """A manifest that was tampered with names a directory elsewhere, or one that a link leads to."""
    died_in_step_4(layout)
    elsewhere = tmp_path / "elsewhere" / "v000002-a001"
    shutil.copytree(version_directory(layout.weights, 2, 1), elsewhere)
    manifest = layout.checkpoints / "step-000002" / MANIFEST
    manifest.write_text(manifest.read_text().replace(str(version_directory(layout.weights, 2, 1)), str(elsewhere)))
    shutil.rmtree(version_directory(layout.weights, 1, 1))
    version_directory(layout.weights, 1, 1).symlink_to(elsewhere)
    attempt = begin(board)
    assert attempt.current == INITIAL
    assert all("lies outside of" in reason for reason in attempt.passed_over)
    assert len(attempt.passed_over) == 2


def test_without_any_whole_version_it_begins_at_the_beginning(begin: Any, layout: RunLayout, board: LocalBoard) -> None:
    for step in (1, 2):
        train(layout, step)
        checkpoint(layout, step)
    attempt = begin(board)
    assert (attempt.start.step, attempt.start.checkpoint, attempt.current) == (0, None, INITIAL)
    assert len(attempt.passed_over) == 2
    assert list(layout.checkpoints.iterdir()) == []
    assert list(read_ledger(layout.ledger)) == []


def test_the_evaluator_is_handed_every_end_of_an_epoch_that_is_left(
    begin: Any, layout: RunLayout, board: LocalBoard
) -> None:
    died_in_step_4(layout)
    begin(board)
    assert evaluate_all(board) == [("initial", 0), (str(layout.weights / "v000002-a001"), 1)]


def test_a_board_that_died_is_filled_again_by_the_next_attempt(
    begin: Any, layout: RunLayout, board: LocalBoard
) -> None:
    """An empty board in its place refuses the attempt that it knows nothing of."""
    died_in_step_4(layout)
    begin(board)
    board.restart()
    with pytest.raises(StaleAttemptError, match="attempt 1 came while attempt 0 runs"):
        board.admit.remote(1, "sampler", 16, 1)
    attempt = begin(board)
    assert (attempt.start.number, attempt.start.step) == (2, 2)
    assert board.newest.remote() == attempt.current
    assert evaluate_all(board) == [("initial", 0), (str(layout.weights / "v000002-a001"), 1)]


def test_what_the_evaluator_reads_stays_over_attempts(begin: Any, layout: RunLayout, board: LocalBoard) -> None:
    """Version 2 is evaluated while the attempt that published it dies, and the next one goes beyond it."""
    died_in_step_4(layout)
    attempt = begin(board)
    board.pin.remote(attempt.start.number, set())
    gone = board.publish.remote(1, Version(3, "v3", 3))
    assert gone == [str(layout.weights / "v000001-a001")]
    remove_versions(gone)
    begin(board)
    board.pin.remote(2, set())
    assert board.publish.remote(2, Version(3, "v3-a002", 3)) == []
    read, best = Version(2, str(layout.weights / "v000002-a001"), step=2, epoch=1), Version(4, "v4-a002", 4, epoch=2)
    assert board.publish.remote(2, best) == ["v3-a002"]
    board.evaluated.remote(read, [read.path])
    assert board.publish.remote(2, Version(5, "v5-a002", 5)) == [], "the best so far, and one that waits"
    board.evaluated.remote(best, [best.path])
    assert sorted(board.publish.remote(2, Version(6, "v6-a002", 6))) == [read.path, "v5-a002"]


def evaluate_all(board: LocalBoard) -> list[tuple[str, int | None]]:
    """What the board hands to the evaluator until training is finished; each is handed out until it is done."""
    board.finish.remote()
    handed: list[tuple[str, int | None]] = []
    while (version := board.next_evaluation.remote()) is not None:
        assert board.next_evaluation.remote() == version
        handed.append((version.path, version.epoch))
        board.evaluated.remote(version, [])
    return handed
