"""Calls the command line in this process, with dummy phases where a test runs something."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orpo_ray.cli import main

CONFIG: dict[str, Any] = {
    "name": "toy",
    "task": {"name": "arithmetic", "test_size": 10},
    "teacher": {"model": "models/teacher"},
    "student": {"model": "models/student"},
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """`call("validate", "toy.yaml")`, in an empty working directory with the file toy.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORPO_RAY_DEBUG", raising=False)
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))

    def called(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["orpo-ray", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return called
