"""Sentences of the report."""

from pathlib import Path

import pytest

from orpo_ray.report.wording import from_here


def test_a_path_below_the_working_directory_is_told_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "runs" / "toy") == "runs/toy"
    assert from_here(Path("/elsewhere/toy")) == "/elsewhere/toy"


def test_a_working_directory_that_is_gone_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a job's, where two of Ray's nodes on one machine unpack it one after the other."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert from_here(Path("/storage/toy/export")) == "/storage/toy/export"
