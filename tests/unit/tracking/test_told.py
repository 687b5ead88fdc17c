"""Workers' own lines: JSON with run, phase and process; nothing where no run is known, and nothing that can end one."""

import json
from pathlib import Path

import pytest

from orpo_ray.tracking.meter import RUN_VARIABLE
from orpo_ray.tracking.told import DIRECTORY_VARIABLE, tell


def test_a_line_says_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "toy")
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    tell("sampler.loaded", phase="distill", version=3)
    tell("sampler.block", phase="distill", row=16, prompt_ids=["a", "ä"])
    (file,) = (tmp_path / "logs").iterdir()
    first, second = [json.loads(line) for line in file.read_text().splitlines()]
    assert (first["run"], first["phase"], first["kind"], first["version"]) == ("toy", "distill", "sampler.loaded", 3)
    assert first["process"] == file.stem
    assert first["time"].endswith("Z")
    assert second["prompt_ids"] == ["a", "ä"]


def test_without_a_run_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    tell("sampler.loaded", phase="distill")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_gone_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "gone"))
    tell("sampler.loaded", phase="distill")
    assert list(tmp_path.iterdir()) == []
