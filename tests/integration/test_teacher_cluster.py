"""TEACH's clients, and the choice of the served teacher's port, where the head node offers no CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.tiny.api import fake_api
from tests.tiny.sums_api import sums_script

ROOT = Path(__file__).parents[2]

# In a process of its own: the test session has a cluster already.
ZERO_CPU_HEAD = """
import json, os, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from orpo_ray.errors import OrpoRayError
from orpo_ray.tasks.split_of import split_of
from orpo_ray.teacher.access import TeacherAccess
from orpo_ray.teacher.caller import Asking
from orpo_ray.teacher.judging import Judging
from orpo_ray.teacher.pipeline import judged_blocks
from orpo_ray.teacher.on_serve import NODE_LABEL, _head_port, head_node
from tests.tiny.runs import tiny_config
from tests.tiny.where import NODES

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
    cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    asked = Path("asked").resolve()
    asked.mkdir()
    environment = {"PYTHONPATH": os.environ["PYTHONPATH"], NODES: str(asked)}
    ray.init(address=cluster.address, runtime_env={"env_vars": environment}, log_to_driver=False)
    head = head_node()["NodeID"]
    (other,) = [node["NodeID"] for node in ray.nodes() if node["NodeID"] != head]
    config = tiny_config(
        Path("runs"),
        Path("student"),
        task={"name": "tests.tiny.where:WhereTask", "train_size": 40},
        teacher={"backend": "openai", "model": "sums", "base_url": sys.argv[1], "path": None},
    )
    task = split_of(config.task, "train", 0)
    asking = Asking(task, k=2, temperature=0.5, top_p=1.0, max_tokens=20, run_seed=0)
    facts = {"head": head, "other": other}
    for node in (head, None):
        access = TeacherAccess(config.teacher, task, sys.argv[1], "sums", "none", node)
        lines = judged_blocks(
            config.teacher, [Judging(asking, "sums", 0.8, None)], access, [(0, 0), (0, 1), (0, 2)]
        )
        facts[f"prompts {node}"] = sum(line["prompts"] for line in lines.iter_rows())
        facts[f"asked {node}"] = sorted(os.listdir(asked))
        for file in asked.iterdir():
            file.unlink()

    @ray.remote(num_cpus=1, label_selector={NODE_LABEL: other})
    def driver(port, limit_s=60):
        try:
            return _head_port("127.0.0.1", port, "teacher.serve.port", limit_s)
        except OrpoRayError as error:
            return str(error)

    import socket
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        facts["taken"] = taken.getsockname()[1]
        facts["refused"] = ray.get(driver.remote(facts["taken"]))
    facts["free"] = ray.get(driver.remote(0))
    facts["silent"] = ray.get(driver.remote(0, 0.0001))
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(facts))
"""


def test_the_clients_of_a_teacher_on_loopback_work_on_a_head_without_a_cpu(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(ZERO_CPU_HEAD)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with fake_api(sums_script) as api:
        ended = subprocess.run(
            [sys.executable, str(script), api.base_url],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert ended.returncode == 0, ended.stderr
    facts: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    head, other = facts["head"], facts["other"]
    assert (facts[f"prompts {head}"], facts[f"asked {head}"]) == (40, [head])
    # Nothing that asks for no CPU strays to the head where any node reaches the teacher.
    assert (facts["prompts None"], facts["asked None"]) == (40, [other])
    assert facts["refused"].startswith(f"teacher.serve.port: 127.0.0.1:{facts['taken']} cannot be used (Address")
    assert facts["free"] > 1023
    assert facts["silent"].startswith("teacher.serve.port: waited 0.0001 s for the head node to look for the port on")
