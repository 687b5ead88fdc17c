"""A run on a cluster of several nodes whose head does no work: each group of actors is where its labels put it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from orpo_ray.config import dump_config
from orpo_ray.errors import OrpoRayError
from orpo_ray.phases.distill import Distill
from orpo_ray.phases.fit import Bundle, Demand
from orpo_ray.phases.places import ask_ray
from orpo_ray.phases.seed import Seed
from tests.tiny.models import make_model
from tests.tiny.runs import context_of, teach_by_hand, tiny_config

ROOT = Path(__file__).parents[2]
ROLE = "orpo-ray.io/role"

# In a process of its own: the test session has a cluster already. It watches the run's actors, which tell their names to the
# dashboard only.
PROGRAM = """
import json, os, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster

def watch(seen, errors, over):
    import ray
    from ray.util.state import list_actors
    while not over.wait(0.5):
        if not ray.is_initialized():
            continue
        try:
            roles = {node["NodeID"]: node["Labels"].get("orpo-ray.io/role", "head") for node in ray.nodes()}
            for actor in list_actors(address=os.environ["RAY_ADDRESS"], detail=True, limit=1000):
                if actor.node_id:
                    seen.add((actor.repr_name or actor.class_name, roles.get(actor.node_id, "?")))
        except Exception as error:
            errors.append(repr(error))

if __name__ == "__main__":
    nodes = json.loads(sys.argv[2])
    head = {"num_cpus": 0, "object_store_memory": 100 << 20, "include_dashboard": True}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for role, cpus in nodes.items():
        cluster.add_node(num_cpus=cpus, labels={"orpo-ray.io/role": role}, object_store_memory=100 << 20)
    os.environ["RAY_ADDRESS"] = cluster.address
    from orpo_ray.config import load_config
    from orpo_ray.cli.execute import execute
    seen, errors, over = set(), [], threading.Event()
    watching = threading.Thread(target=watch, args=(seen, errors, over))
    watching.start()
    try:
        execute(load_config(sys.argv[1]), command="test")
    finally:
        over.set()
        watching.join()
        cluster.shutdown()
    print(json.dumps({"seen": sorted(seen), "errors": errors[-3:]}))
"""


@pytest.mark.slow
def test_every_role_is_on_its_own_nodes_and_the_head_on_none(tmp_path: Path) -> None:
    labels = {f"{role}_labels": {ROLE: role} for role in ("teacher", "sampler", "trainer")}
    config = tiny_config(
        tmp_path / "runs",
        make_model(tmp_path / "student", "neox"),
        task={"name": "tests.tiny.noise:NoiseTask", "train_size": 40, "test_size": 4},
        teacher={
            "backend": "serve",
            "path": None,
            "model": str(make_model(tmp_path / "teacher", "llama")),
            # The head, where Serve listens, takes none of its clients.
            "serve": {"port": 0, "host": "0.0.0.0"},
            "engine": {"dtype": "float32", "max_model_len": 128, "prefill_tokens": 512, "kv_cache_mib": 64},
        },
        # The random teacher ends few of its traces, and a cut one is not learned from.
        sampling={"max_tokens": 24},
        train={"epochs": 1},
        resources={"block_rows": 2, "trainer_strategy": "STRICT_PACK", **labels},
    )
    file, program = tmp_path / "run.yaml", tmp_path / "program.py"
    file.write_text(dump_config(config))
    program.write_text(PROGRAM)
    # A sampler and the evaluator; two workers; a data task with the teacher's client, judge and ingress.
    nodes = {"teacher": 1, "sampler": 2, "trainer": 2, "anywhere": 3}
    ended = subprocess.run(
        [sys.executable, str(program), str(file), json.dumps(nodes)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    facts: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    where: dict[str, set[str]] = {}
    for name, role in facts["seen"]:
        where.setdefault(name, set()).add(role)

    def roles(part: str) -> set[str]:
        found = [places for name, places in where.items() if part in name]
        assert found, (part, facts)
        return set().union(*found)

    assert roles("LLMServer") == {"teacher"}
    assert roles("Sampler") == {"sampler"}
    assert roles("Evaluator") == {"sampler"}
    assert roles("RayTrainWorker") == {"trainer"}
    assert roles("TeacherCaller") <= {"anywhere", "teacher", "sampler", "trainer"}


def test_places_that_are_asked_for_are_given_back(ray_session: None) -> None:
    free = int(ray.available_resources()["CPU"])  # type: ignore[no-untyped-call]
    every, one = Demand("all", (Bundle(1.0),) * free), Demand("one more", (Bundle(1.0),))
    nowhere = Demand("nowhere", (Bundle(1.0),), {ROLE: "nobody"})
    assert ask_ray([every, one], 3) == [True, False]
    assert ask_ray([nowhere], 1) == [False]
    assert ask_ray([every, Demand("nothing", (Bundle(0.0),))], 60) == [True, True]


@pytest.mark.slow
def test_train_workers_that_find_no_place_end_the_run(ray_session: None, tmp_path: Path) -> None:
    """As where an autoscaler cannot bring their nodes: a wait has its limit, and the run says what it waited for."""
    config = tiny_config(
        tmp_path / "runs",
        make_model(tmp_path / "student"),
        resources={"block_rows": 2, "trainer_labels": {ROLE: "nobody"}},
        limits={"start_s": 60, "failures": 0},
    )
    context = context_of(config)
    teach_by_hand(context)
    context.results["SEED"] = Seed().run(context)
    began = time.monotonic()
    with pytest.raises(OrpoRayError) as failed:
        Distill().run(context)
    assert 60 <= time.monotonic() - began < 200
    assert str(failed.value).startswith(
        "limits.start_s: no place within 60 s for train workers (2 × 1 CPU on nodes with {'orpo-ray.io/role': 'nobody'}), "
    )
