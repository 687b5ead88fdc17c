"""`orpo-ray doctor`: what is printed, and the exit code."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from orpo_ray.cli import doctor
from orpo_ray.doctor import Finding, Level
from tests.unit.cli.conftest import Call

SOUND = Finding("python", Level.OK, "3.12")
DOUBTFUL = Finding("memory", Level.WARNING, "little", "take more")
BROKEN = Finding("storage", Level.FAULT, "none", "give one")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    findings = [SOUND, DOUBTFUL]

    def examine(config: Any, **options: Any) -> Iterator[Finding]:
        return iter(findings)

    monkeypatch.setattr(doctor, "examine", examine)
    return findings


def test_each_line_has_its_cure_and_a_warning_is_no_fault(call: Call, found: list[Finding]) -> None:
    ended = call("doctor", "toy.yaml")
    assert ended.code == 0
    assert ended.out == "ok       python: 3.12\nwarning  memory: little\n         → take more\n"


def test_a_fault_is_exit_code_1(call: Call, found: list[Finding]) -> None:
    found.append(BROKEN)
    ended = call("doctor")
    assert ended.code == 1
    assert "FAULT    storage: none\n         → give one\n" in ended.out


def test_as_json(call: Call, found: list[Finding]) -> None:
    found.append(BROKEN)
    ended = call("doctor", "--json")
    assert ended.code == 1
    told = json.loads(ended.out)
    assert told["ok"] is False
    assert told["findings"][1] == {"check": "memory", "level": "warning", "found": "little", "cure": "take more"}


def test_this_machine_is_examined_for_real(call: Call) -> None:
    ended = call("doctor", "--json")
    checks = [finding["check"] for finding in json.loads(ended.out)["findings"]]
    for check in (
        "python",
        "packages",
        "vllm",
        "compiler",
        "memory",
        "/dev/shm",
        "open files",
        "GPUs",
        "token",
        "storage",
    ):
        assert check in checks
