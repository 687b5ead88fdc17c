"""What Ray's workers find in their environment."""

import json
import os
import sys
from pathlib import Path

import pytest

from orpo_ray.phases.cluster import _JOB, _environment
from tests.tiny.runs import tiny_config

BIN = str(Path(sys.executable).parent)


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(_JOB, raising=False)


def variables() -> dict[str, str]:
    return _environment(tiny_config(Path("runs"), Path("student"), resources={"threads": 3}))


def test_the_tools_of_the_environment_are_found_though_it_is_not_activated(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed looks for ninja on the PATH."""
    monkeypatch.setenv("PATH", os.pathsep.join(["/usr/bin", "/bin"]))
    assert variables() == {
        "OMP_NUM_THREADS": "3",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "DS_ACCELERATOR": "cpu",
        "ORPO_RAY_RUN": "tiny",
        "ORPO_RAY_RUN_DIRECTORY": str(Path("runs").resolve() / "tiny"),
        "PATH": os.pathsep.join([BIN, "/usr/bin", "/bin"]),
        "VLLM_HOST_IP": "127.0.0.1",  # where such a cluster listens
    }


def test_an_activated_environment_keeps_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join(["/first", BIN, "/bin"])
    monkeypatch.setenv("PATH", path)
    assert variables()["PATH"] == path


@pytest.mark.parametrize(("name", "value"), [("RAY_ADDRESS", "10.0.0.1:6379"), (_JOB, "{}")])
def test_nodes_of_another_cluster_have_a_path_and_an_address_of_their_own(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert not {"PATH", "VLLM_HOST_IP"} & variables().keys()


def test_a_job_submitted_with_settings_of_its_own_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_JOB, json.dumps({"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "8"}}}))
    assert variables().keys() == {
        "RAY_DATA_DISABLE_PROGRESS_BARS", "DS_ACCELERATOR", "ORPO_RAY_RUN", "ORPO_RAY_RUN_DIRECTORY",
    }  # fmt: skip
