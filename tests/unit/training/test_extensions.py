"""Who may build an extension: one process at a time, never a dead one, and no wait without an end."""

import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from orpo_ray.errors import WaitTimeout
from orpo_ray.training.extensions import extensions_directory, sole_builder


def hold(directory: Path, seconds: float) -> None:
    with sole_builder(directory, "op", limit_s=30):
        (directory / "held").touch()
        time.sleep(seconds)
        (directory / "done").touch()


def start(directory: Path, seconds: float) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=hold, args=(directory, seconds))
    process.start()
    while not (directory / "held").exists():
        time.sleep(0.01)
    return process


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    process = start(tmp_path, 0.5)
    with sole_builder(tmp_path, "op", limit_s=30):
        assert (tmp_path / "done").exists()
    process.join()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, 600)
    process.kill()
    with sole_builder(tmp_path, "op", limit_s=5):
        assert not (tmp_path / "done").exists()


def test_the_wait_ends_and_says_what_for(tmp_path: Path) -> None:
    process = start(tmp_path, 600)
    try:
        with (
            pytest.raises(WaitTimeout, match=r"building op for over 0.2 s .*op\.flock"),
            sole_builder(tmp_path, "op", 0.2),
        ):
            pass
    finally:
        process.kill()


def test_each_environment_has_its_own_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch is told, too."""

    def directory(prefix: str) -> Path:
        monkeypatch.setattr(sys, "prefix", prefix)
        monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "")
        monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
        found = extensions_directory()
        assert str(found) == os.environ["TORCH_EXTENSIONS_DIR"]
        return found

    one, other = directory("/env/one"), directory("/env/other")
    assert one != other
    assert one.parent == other.parent
    assert directory("/env/one") == one


def test_a_directory_that_is_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert extensions_directory() == tmp_path
