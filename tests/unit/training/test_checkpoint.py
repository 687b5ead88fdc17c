"""A checkpoint is whole or passed over; a real DeepSpeed engine is behind it in tests/integration."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orpo_ray.training.checkpoint import (
    drop_later_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    resumable_versions,
    save_checkpoint,
)
from orpo_ray.weights.published import MANIFEST, IncompleteVersionError

WEIGHTS = "deepspeed/mp_rank_00_model_states.pt"


class FakeEngine:
    """Saves and loads as DeepSpeed's engine does: files below a tag."""

    def __init__(self, state: str = "") -> None:
        self.state = state
        self.module = torch.nn.Linear(1, 1)

    def save_checkpoint(self, directory: str, tag: str, exclude_frozen_parameters: bool) -> None:
        (Path(directory) / tag).mkdir()
        (Path(directory) / WEIGHTS).write_text(self.state)

    def load_checkpoint(self, directory: str, tag: str, load_module_strict: bool) -> tuple[str | None, dict[str, Any]]:
        file = Path(directory) / WEIGHTS
        if not file.exists():
            return None, {}
        self.state = file.read_text()
        return str(file), {}


def save(directory: Path, step: int, state: str = "weights") -> Path:
    path = directory / f"step-{step:06d}"
    facts = {
        "step": step,
        "version": step // 2,
        "version_path": f"weights/v{step // 2:06d}-a001",
        "version_step": step // 2 * 2,
        "world_size": 1,
    }
    save_checkpoint(FakeEngine(state), path, facts, rank=0, barrier=lambda: None)
    return path


def steps(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_newest_is_found_with_its_cursor(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    save(tmp_path, 2)
    newest = save(tmp_path, 5)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.path, found.step, found.version, found.world_size) == (newest, 5, 2, 1)
    assert (found.version_path, found.version_step) == ("weights/v000002-a001", 4)


def test_weights_and_random_state_come_back(tmp_path: Path) -> None:
    torch.manual_seed(7)
    path = save(tmp_path, 2, state="after two steps")
    expected = torch.rand(4)
    torch.manual_seed(8)
    engine = FakeEngine()
    load_checkpoint(engine, path, rank=0)
    assert engine.state == "after two steps"
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest"])
def test_one_that_is_not_whole_is_passed_over(tmp_path: Path, damage: str) -> None:
    whole, broken = save(tmp_path, 2), save(tmp_path, 4)
    if damage == "truncated":
        (broken / WEIGHTS).write_text("wei")
    elif damage == "missing":
        (broken / "rng-rank-0.pt").unlink()
    else:
        (broken / MANIFEST).unlink()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.path == whole


def test_one_that_was_still_being_written_is_passed_over_and_written_anew(tmp_path: Path) -> None:
    save(tmp_path, 2)
    save(tmp_path, 4).rename(tmp_path / "step-000004.partial")
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 2
    save(tmp_path, 4, state="the second time")
    assert steps(tmp_path) == ["step-000002", "step-000004"]
    assert (tmp_path / "step-000004" / WEIGHTS).read_text() == "the second time"


def test_pruning_keeps_the_newest_and_names_their_versions(tmp_path: Path) -> None:
    for step in (1, 2, 4, 6):
        save(tmp_path, step)
    assert prune_checkpoints(tmp_path, keep=2) == {2, 3}
    assert steps(tmp_path) == ["step-000004", "step-000006"]
    assert prune_checkpoints(tmp_path, keep=2) == {2, 3}


def test_steps_are_ordered_by_number(tmp_path: Path) -> None:
    """Names sort as text up to six digits; runs may be longer."""
    save(tmp_path, 999_998)
    newest = save(tmp_path, 1_000_002)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.path == newest
    assert prune_checkpoints(tmp_path, keep=1) == {500_001}


def test_what_is_newer_than_the_start_is_dropped(tmp_path: Path) -> None:
    """Left there, a broken one would be counted among the kept, and its version asked for at each pruning."""
    for step in (2, 4, 6):
        save(tmp_path, step)
    (tmp_path / "step-000006" / WEIGHTS).write_text("cut")
    save(tmp_path, 8).rename(tmp_path / "step-000008.partial")
    assert resumable_versions(tmp_path) == {1, 2}
    drop_later_checkpoints(tmp_path, step=4)
    assert steps(tmp_path) == ["step-000002", "step-000004"]


def test_a_checkpoint_without_weights_is_not_taken_for_a_start(tmp_path: Path) -> None:
    path = save(tmp_path, 2)
    (path / WEIGHTS).unlink()
    with pytest.raises(IncompleteVersionError, match="step-000002"):
        load_checkpoint(FakeEngine(), path, rank=0)
