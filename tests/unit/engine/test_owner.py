"""An engine's processes end with the one that started it, in both shapes that vLLM gives an engine."""

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orpo_ray.engine.owner import EndsWithOwner

# What vLLM does, without vLLM: an owner starts an engine, which is its own worker ("uni") or starts one ("mp").
FAKE_ENGINE = """
import multiprocessing, os, sys, time
from types import SimpleNamespace
from orpo_ray.engine.owner import EndsWithOwner

def worker(executor):
    config = SimpleNamespace(parallel_config=SimpleNamespace(distributed_executor_backend=executor))
    EndsWithOwner(vllm_config=config)
    print(os.getpid(), flush=True)
    time.sleep(600)

def engine(executor):
    print(os.getpid(), flush=True)
    if executor == "mp":
        child = multiprocessing.get_context("spawn").Process(target=worker, args=(executor,))
        child.start()
        time.sleep(600)
    worker(executor)

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=engine, args=(sys.argv[1],))
    child.start()
    time.sleep(600)
"""


@pytest.mark.parametrize("executor", ["uni", "mp"])
def test_an_engine_and_its_worker_end_with_a_killed_owner(executor: str, tmp_path: Path) -> None:
    script = tmp_path / "engine.py"
    script.write_text(FAKE_ENGINE)
    owner = subprocess.Popen([sys.executable, str(script), executor], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    started = [psutil.Process(int(owner.stdout.readline())) for _ in range(2)]
    assert all(process.is_running() for process in started)
    owner.kill()
    owner.wait()
    _, alive = psutil.wait_procs(started, timeout=20)
    for process in alive:
        process.kill()
    assert not alive


def test_a_worker_that_is_an_actor_of_rays_is_left_to_ray() -> None:
    config = SimpleNamespace(parallel_config=SimpleNamespace(distributed_executor_backend="ray"))
    EndsWithOwner(vllm_config=config)
    assert "owner" not in {thread.name for thread in threading.enumerate()}
