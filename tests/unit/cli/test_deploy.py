"""`orpo-ray deploy render`."""

import yaml

from tests.unit.cli.conftest import Call


def test_it_prints_manifests_that_can_be_applied(call: Call) -> None:
    ended = call("deploy", "render", "toy.yaml", "--to", "kuberay", "--image", "registry/orpo-ray:1", "--queue", "q")
    assert ended.code == 0, ended.err
    job = list(yaml.safe_load_all(ended.out))[-1]
    assert (job["kind"], job["metadata"]["name"]) == ("RayJob", "toy")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["image"] == "registry/orpo-ray:1"


def test_a_target_that_is_none(call: Call) -> None:
    ended = call("deploy", "render", "toy.yaml", "--to", "slurm")
    assert ended.code == 2
    assert "kuberay" in ended.err
    assert "Traceback" not in ended.err


def test_what_cannot_be_placed_is_one_message(call: Call) -> None:
    ended = call(
        "deploy", "render", "toy.yaml", "--kind", "teacher", "--set", "teacher={backend: recorded, path: x.jsonl}"
    )
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("orpo-ray: teacher.backend: recorded; only a teacher of ours")
