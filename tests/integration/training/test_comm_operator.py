"""DeepSpeed's own operator, compiled: by two processes at once, over the lock file of a compile that was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = """
import os
os.environ["DS_ACCELERATOR"] = "cpu"
from orpo_ray.training.extensions import build_comm_operator
build_comm_operator(limit_s=240)
from deepspeed.comm.torch import build_shm_op
print(build_shm_op().vector_kernel_level())
"""


@pytest.mark.slow
def test_two_processes_build_over_a_leftover_lock(tmp_path: Path) -> None:
    """PyTorch alone would wait for the lock file for ever."""
    pytest.importorskip("deepspeed")
    lock = tmp_path / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir()
    lock.touch()
    environ = os.environ | {"TORCH_EXTENSIONS_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", BUILD], env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        levels = [process.communicate(timeout=280)[0].split()[-1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    assert levels[0] == levels[1]
    assert not lock.exists()
