"""What the set-up says of a machine, given what it found there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from check_machine import Machine, memory_bytes, problems, survey

FIT = Machine(
    python=(3, 11),
    executable="/usr/bin/python3",
    missing_modules=(),
    has_headers=True,
    system="Linux",
    architecture="x86_64",
    compiler="c++",
    has_compiler=True,
    has_libnuma=True,
    free_disk=100.0,
    memory=16.0,
)


def test_a_fit_machine_has_no_problem() -> None:
    assert problems(FIT, "cpu") == []


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_the_pythons_that_the_lock_has_wheels_for_are_fit(version: tuple[int, int]) -> None:
    assert problems(FIT._replace(python=version), "cpu") == []


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ({"python": (3, 10)}, ["/usr/bin/python3 is 3.10", "3.11 to 3.14 is needed", "make PYTHON=python3.11"]),
        ({"python": (3, 15)}, ["/usr/bin/python3 is 3.15", "3.11 to 3.14 is needed"]),
        ({"missing_modules": ("venv", "ensurepip")}, ["lacks venv and ensurepip", "apt-get install python3.11-venv"]),
        ({"has_headers": False}, ["Python.h", "apt-get install python3.11-dev"]),
        ({"system": "Darwin", "architecture": "arm64"}, ["Darwin on arm64", "Linux on x86_64"]),
        ({"architecture": "aarch64"}, ["Linux on aarch64", "Linux on x86_64"]),
        ({"has_compiler": False}, ["no C++ compiler `c++`", "apt-get install g++"]),
        ({"has_libnuma": False}, ["libnuma.so.1 is missing", "apt-get install libnuma1"]),
        ({"free_disk": 5.94}, ["5.9 GiB free", "about 6 GiB"]),
        ({"memory": 3.8}, ["3.8 GiB here", "at least 8 GB"]),
    ],
)
def test_each_lack_is_one_sentence_with_its_cure(lack: dict[str, object], words: list[str]) -> None:
    (problem,) = problems(FIT._replace(**lack), "cpu")
    for word in words:
        assert word in problem


def test_every_lack_is_said_at_once() -> None:
    assert len(problems(FIT._replace(has_compiler=False, free_disk=1.0, memory=1.0), "cpu")) == 3


def test_a_gpu_environment_needs_more_disk() -> None:
    roomy_for_a_cpu = FIT._replace(free_disk=10.0)
    assert problems(roomy_for_a_cpu, "cpu") == []
    assert "about 20 GiB" in problems(roomy_for_a_cpu, "cuda")[0]


def test_only_the_cpu_engine_needs_libnuma() -> None:
    assert problems(FIT._replace(has_libnuma=False), "cuda") == []


def test_a_machine_sold_as_8_gb_is_fit() -> None:
    assert problems(FIT._replace(memory=7.6), "cpu") == []


def test_the_survey_looks_at_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = survey(tmp_path)
    assert found.python == sys.version_info[:2]
    assert found.missing_modules == ()
    assert (found.compiler, found.has_compiler) == ("no-such-compiler", False)


def test_a_containers_limit_counts_where_it_is_lower(tmp_path: Path) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_bytes(tmp_path) == whole
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path) == whole
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory_bytes(tmp_path) == 1_000_000


def test_the_program_prints_what_is_missing_and_fails() -> None:
    script = Path(__file__).parents[3] / "scripts" / "check_machine.py"
    environment = {**os.environ, "CXX": "no-such-compiler"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Compiler: no C++ compiler `no-such-compiler`" in done.stderr
    assert "Traceback" not in done.stderr
