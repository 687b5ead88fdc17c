"""A run's own cluster: it is there when needed, has what is asked, and leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

from orpo_ray.config.secrecy import is_loopback_host

ROOT = Path(__file__).parents[2]

# In a process of its own: the test session has a cluster already.
PROGRAM = """
import json, os, shutil, signal, sys
import psutil
from orpo_ray.errors import InputError
from orpo_ray.phases.cluster import connect, disconnect
from tests.tiny.runs import tiny_config
from tests.tiny.listeners import listening
from pathlib import Path

def on_sigterm(number, frame): ...

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, on_sigterm)
    config = tiny_config(Path("runs"), Path("models/student"))
    connect(config)
    connect(config)  # nothing happens
    import ray

    @ray.remote
    def environment():
        variables = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "DS_ACCELERATOR")}
        return variables | {"ninja": shutil.which("ninja")}

    facts = {
        "cpus": ray.cluster_resources()["CPU"],
        "environment": ray.get(environment.remote()),
        "sigterm": signal.getsignal(signal.SIGTERM) is on_sigterm,
    }
    processes = psutil.Process().children(recursive=True)
    facts["started"] = len(processes)
    facts["listening"] = listening([psutil.Process(), *processes])
    disconnect()
    disconnect()  # nothing happens
    facts["left"] = [
        " ".join(process.cmdline()) for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]
    greedy = tiny_config(Path("runs"), Path("models/student"), resources={"block_rows": 2, "trainer_gpus": 1})
    try:
        connect(greedy)
    except InputError as error:
        facts["refused"] = str(error)
    disconnect()
    print(json.dumps(facts))
"""


def test_a_cluster_of_its_own_comes_and_goes(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        # As where the environment is not activated.
        env=environment | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout.splitlines()[-1])
    # A sampler, the evaluator, two workers, a data task, and one more; or as many as the machine has.
    assert facts["cpus"] == max(6, os.cpu_count() or 1)
    ninja = str(Path(sys.executable).with_name("ninja"))
    assert facts["environment"] == {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "ninja": ninja}
    assert facts["sigterm"]
    assert facts["started"] > 3
    assert [found for found in facts["listening"] if not is_loopback_host(found[1].rpartition(":")[0])] == []
    assert len(facts["listening"]) >= 3
    assert facts["left"] == []
    assert facts["refused"].startswith(
        "resources that do not fit: asked is 2 GPUs (DISTILL: 2 train workers × 1), there is 0 GPUs"
    )


def test_an_address_where_no_cluster_answers(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from orpo_ray.phases.cluster import connect; from tests.tiny.runs import tiny_config\n"
        "from orpo_ray.errors import InputError\n"
        "try: connect(tiny_config(Path('runs'), Path('s')))\n"
        "except InputError as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.stdout.startswith("RAY_ADDRESS: no Ray cluster answers at 127.0.0.1:1"), ended.stderr
