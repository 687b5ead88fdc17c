"""A run on a cluster of several nodes that die and come back: `python -m tests.chaos.nodes STORAGE STUDENT SCENARIO`.

Workers, board, splitter and samplers are real; fake are the engines behind samplers and evaluator. The head runs data tasks
and what needs no CPU; each worker and each sampler has a node of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orpo_ray.phases.context import RunContext
from orpo_ray.phases.metrics_tail import read_metrics
from orpo_ray.training.checkpoint import Checkpoint, newest_checkpoint
from tests.chaos.run import BATCH, PROMPTS, with_fake_engines
from tests.tiny.fake_engine import write_sums
from tests.tiny.runs import context_of, tiny_config

ROLE = "orpo-ray.io/role"
_PATIENCE_S = 240.0
_STORE = 100 << 20


def nodes_context(storage: Path, student: Path, epochs: int = 8, **limits: Any) -> RunContext:
    """Two workers and two samplers, of which one each is enough."""
    config = tiny_config(
        storage,
        student,
        task={"name": "tests.tiny.sums:SumsTask", "train_size": PROMPTS, "test_size": 8},
        policy={"phi": 0.5},
        train={"epochs": epochs, "zero_stage": 2, "checkpoint_every": 4, "global_batch": BATCH, "workers_min": 1},
        resources={
            "block_rows": 2,
            "samplers": 2,
            "grow_every_s": 5,
            "trainer_labels": {ROLE: "trainer"},
            "sampler_labels": {ROLE: "sampler"},
            "evaluator_labels": {},
            "evaluator_cpus": 0,
        },
        limits={"failures": 5, "place_s": 10, **limits},
    )
    context = context_of(config)
    if not context.layout.pairs.exists():
        write_sums(context.layout.pairs, PROMPTS)
    context.results["SEED"] = {}
    return context


class Nodes:
    """The cluster: a head for the rest, and a node for each worker and each sampler."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 2, "object_store_memory": _STORE, "include_dashboard": False},
        )
        self.address: str = self.cluster.address

    def add(self, role: str) -> Any:
        return self.cluster.add_node(num_cpus=1, labels={ROLE: role}, object_store_memory=_STORE)

    def kill(self, node: Any) -> None:
        """As when a machine dies: without a word."""
        self.cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any, seconds: float) -> None:
        """As a cloud tells of a spot machine that it takes back in so many seconds."""
        notice = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken back"]
        command = ["ray", "drain-node", "--address", self.address, "--node-id", node.node_id, *notice]
        subprocess.run([*command, "--deadline-remaining-seconds", str(round(seconds))], check=True, timeout=120)


class Watch:
    """What the run's files tell while it works."""

    def __init__(self, context: RunContext, said: Path, run: Future[Any]) -> None:
        self._layout, self._said, self._run = context.layout, said, run

    def step(self) -> int:
        return max((line["step"] for line in read_metrics(self._layout.metrics)), default=0)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not condition():
            if self._run.done():
                raise AssertionError(f"the run ended before {what}") from self._run.exception()
            assert time.monotonic() < end, f"waited {_PATIENCE_S:g} s for {what}; at step {self.step()}"
            time.sleep(0.1)

    def commits_with(self, ranks: int) -> None:
        """Wait until so many ranks have written a checkpoint of a later step than the newest now."""
        newest = self._checkpoint()
        now = newest.step if newest else 0

        def later() -> bool:
            found = self._checkpoint()
            return found is not None and found.step > now and found.world_size == ranks

        self.until(later, f"a checkpoint of {ranks} ranks after step {now}")

    def begins_with(self, workers: int, samplers: int) -> None:
        """Wait until an attempt has said that it has so many."""

        def begun() -> bool:
            told = [line for line in read_metrics(self._said) if line["kind"] == "distill.places"]
            return bool(told) and (told[-1]["workers"], told[-1]["samplers"]) == (workers, samplers)

        self.until(begun, f"an attempt with {workers} workers and {samplers} samplers")

    def _checkpoint(self) -> Checkpoint | None:
        return newest_checkpoint(self._layout.checkpoints)


def workers_two_one_two(nodes: Nodes, watch: Watch, members: dict[str, list[Any]]) -> None:
    """A worker's node dies, and another comes."""
    watch.commits_with(2)
    nodes.kill(members["trainer"].pop())
    watch.commits_with(1)
    nodes.add("trainer")
    watch.commits_with(2)


def samplers_two_one_two(nodes: Nodes, watch: Watch, members: dict[str, list[Any]]) -> None:
    """A sampler's node dies, with whatever else Ray has put there, and another comes."""
    watch.commits_with(2)
    nodes.kill(members["sampler"].pop())
    watch.begins_with(2, 1)
    watch.commits_with(2)
    nodes.add("sampler")
    watch.begins_with(2, 2)
    watch.commits_with(2)


def a_worker_taken_back(nodes: Nodes, watch: Watch, members: dict[str, list[Any]]) -> None:
    """A worker's node gives notice, and goes half a minute later."""
    watch.commits_with(2)
    node = members["trainer"].pop()
    nodes.drain(node, 30)
    watch.commits_with(1)
    nodes.kill(node)
    watch.commits_with(1)


SCENARIOS: dict[str, Callable[[Nodes, Watch, dict[str, list[Any]]], None]] = {
    scenario.__name__: scenario for scenario in (workers_two_one_two, samplers_two_one_two, a_worker_taken_back)
}


def main(storage: Path, student: Path, scenario: str) -> None:
    import ray
    import ray.data

    nodes = Nodes()
    members = {role: [nodes.add(role) for _ in range(2)] for role in ("trainer", "sampler")}
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    ray.init(address=nodes.address, log_to_driver=False)
    from orpo_ray.phases.distill import Distill

    context = nodes_context(storage, student)
    said = storage / "said.jsonl"

    def say(kind: str, **facts: Any) -> None:
        with said.open("a") as file:
            file.write(json.dumps({"kind": kind, "at": time.time(), **facts}, default=str) + "\n")

    context = RunContext(context.config, context.layout, say, {"SEED": {}})
    with_fake_engines(storage / "calls.jsonl")
    # Ray starts a node from the main thread only.
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(Distill().run, context)
        SCENARIOS[scenario](nodes, Watch(context, said, run), members)
        result = run.result()
    (storage / "result.json").write_text(json.dumps(result))
    ray.shutdown()
    nodes.cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
