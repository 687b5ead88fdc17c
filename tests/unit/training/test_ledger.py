"""The ledger holds each trained row of the committed lineage once, whatever died in between."""

import json
from pathlib import Path

from orpo_ray.pairs import PairGroup
from orpo_ray.training.ledger import LedgerWriter, drop_uncommitted, read_ledger


def group(index: int, *, policy: str = "live", version: int = 3, real: bool = True) -> PairGroup:
    return PairGroup(
        index=index,
        epoch=2,
        prompt_id=f"prompt-{index}",
        coin="live",
        policy=policy,  # type: ignore[arg-type]
        version=version,
        real=real,
        prompt=[1],
        chosen=[[2], [3]],
        rejected=[[4]],
        rejected_logp=[-1.0],
        pair_chosen=[0, 1],
        pair_rejected=[0, 0],
    )


def write(directory: Path, attempt: int, rank: int, steps: dict[int, list[int]]) -> None:
    writer = LedgerWriter(directory, attempt, rank)
    for step, rows in steps.items():
        writer.append(step, [group(row) for row in rows])
    writer.sync()
    writer.close()


def rows(directory: Path) -> list[tuple[int, int, int, int]]:
    return [(line["attempt"], line["rank"], line["step"], line["row"]) for line in read_ledger(directory)]


def test_a_step_that_was_passed_over_trained_nothing(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "ledger", attempt=1, rank=0)
    writer.append(2, [group(8), group(9, real=False)], skipped=True)
    writer.close()
    lines = [(line["row"], line["policy"], line["pairs"]) for line in read_ledger(tmp_path / "ledger")]
    assert lines == [(8, "skipped", 0), (9, "padding", 0)]


def test_a_line_says_what_was_trained(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "ledger", attempt=2, rank=1)
    writer.append(7, [group(48), group(49, policy="none", version=0), group(50, real=False)])
    writer.close()
    same = {"attempt": 2, "step": 7, "rank": 1, "epoch": 2}
    assert list(read_ledger(tmp_path / "ledger")) == [
        same | {"row": 48, "prompt_id": "prompt-48", "policy": "live", "version": 3, "pairs": 2},
        same | {"row": 49, "prompt_id": "prompt-49", "policy": "none", "version": 0, "pairs": 2},
        same | {"row": 50, "prompt_id": "prompt-50", "policy": "padding", "version": 3, "pairs": 0},
    ]


def test_attempts_and_ranks_are_read_in_turn(tmp_path: Path) -> None:
    write(tmp_path, 2, 0, {2: [4]})
    write(tmp_path, 1, 1, {1: [1]})
    write(tmp_path, 1, 0, {1: [0]})
    assert rows(tmp_path) == [(1, 0, 1, 0), (1, 1, 1, 1), (2, 0, 2, 4)]


def test_a_line_that_a_kill_cut_is_left_out_and_dropped(tmp_path: Path) -> None:
    write(tmp_path, 1, 0, {1: [0, 1]})
    file = tmp_path / "attempt-001-rank-0.jsonl"
    file.write_text(file.read_text() + '{"attempt": 1, "step": 1, "ra')
    assert rows(tmp_path) == [(1, 0, 1, 0), (1, 0, 1, 1)]
    assert drop_uncommitted(tmp_path, step=1) == 1
    assert [json.loads(line)["row"] for line in file.read_text().splitlines()] == [0, 1]


def test_steps_that_no_checkpoint_holds_are_dropped(tmp_path: Path) -> None:
    """The checkpoint is at step 2; rank 1 had got further than rank 0 when they died."""
    write(tmp_path, 1, 0, {1: [0], 2: [2], 3: [4]})
    write(tmp_path, 1, 1, {1: [1], 2: [3], 3: [5], 4: [7]})
    assert drop_uncommitted(tmp_path, step=2) == 3
    write(tmp_path, 2, 0, {3: [4], 4: [6]})
    write(tmp_path, 2, 1, {3: [5], 4: [7]})
    assert sorted(row for *_, row in rows(tmp_path)) == list(range(8))
    assert drop_uncommitted(tmp_path, step=4) == 0
    assert list(tmp_path.glob("*.partial")) == []


def test_without_a_checkpoint_nothing_was_trained(tmp_path: Path) -> None:
    write(tmp_path, 1, 0, {1: [0, 1]})
    assert drop_uncommitted(tmp_path, step=0) == 2
    assert rows(tmp_path) == []
    assert list(read_ledger(tmp_path / "nowhere")) == []
