"""The real models of the examples, made once for a session; no test of this kind runs where they cannot be had."""

import os
import re
from pathlib import Path

import pytest

from orpo_ray.demo.smollm2 import make_smollm2
from orpo_ray.errors import InputError

ROOT = Path(__file__).parents[2]
ARC_EXAMPLE = ROOT / "examples" / "arc-smollm2-teacher.yaml"


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, whole."""
    return made(tmp_path_factory.mktemp("models") / "smollm2-135m")


@pytest.fixture(scope="session")
def smaller_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with as many layers as the example's own command keeps."""
    command = re.search(r"smollm2 models/(\S+) --layers (\d+)", ARC_EXAMPLE.read_text(encoding="utf-8"))
    assert command is not None
    return made(tmp_path_factory.mktemp("models") / command[1], layers=int(command[2]))


@pytest.fixture
def shared_data() -> Path:
    """The real data sets' files. They are no part of the project: tests that read them skip where they are absent."""
    path = Path(os.environ.get("ORPO_RAY_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set ORPO_RAY_SHARED_DATA to their directory")
    return path


def made(directory: Path, layers: int | None = None) -> Path:
    try:
        make_smollm2(directory, layers=layers)
    except InputError as error:
        pytest.skip(f"SmolLM2 cannot be had here: {error}")
    return directory
