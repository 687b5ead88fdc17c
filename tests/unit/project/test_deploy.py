"""The RayJob is what KubeRay takes, and fits the code, the image and the configuration that it carries."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from create_venv import pins
from jsonschema import Draft202012Validator

from orpo_ray.cli.app import app
from orpo_ray.config import RunConfig, parse_config
from orpo_ray.phases.needs import required_resources

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("ORPO_RAY_SHARED_DIR", ROOT.parent / "shared"))
SCHEMA = SHARED / "kuberay-schemas" / "rayjob_v1.json"
IN_IMAGE = "/opt/orpo-ray/"


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    found = list(yaml.safe_load_all((ROOT / "deploy" / "rayjob.yaml").read_text()))
    assert len({document["kind"] for document in found}) == len(found)
    return {document["kind"]: document for document in found}


@pytest.fixture(scope="module")
def spec(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = documents["RayJob"]["spec"]
    return spec


@pytest.fixture(scope="module")
def config(documents: dict[str, dict[str, Any]]) -> RunConfig:
    return parse_config(yaml.safe_load(documents["ConfigMap"]["data"]["run.yaml"]))


def _pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = spec["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"KubeRay's schemas are not at {SCHEMA} (ORPO_RAY_SHARED_DIR)")
def test_kuberay_takes_it(documents: dict[str, dict[str, Any]]) -> None:
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert [error.message for error in validator.iter_errors(documents["RayJob"])] == []
    misspelt = {**documents["RayJob"], "spec": {**documents["RayJob"]["spec"], "backOffLimit": 2}}
    assert not validator.is_valid(misspelt)


def test_it_is_safe_and_ends(spec: dict[str, Any]) -> None:
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["entrypointNumCpus"] >= 1
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["preRunningDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0
    for pod in _pods(spec):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_versions_are_the_locks(spec: dict[str, Any]) -> None:
    lock = pins((ROOT / "requirements" / "cpu.lock").read_text())
    assert f"ray=={spec['rayClusterSpec']['rayVersion']}" in lock
    images = {container["image"] for pod in _pods(spec) for container in pod["spec"]["containers"]}
    assert len(images) == 1
    assert f"-t {images.pop()} " in (ROOT / "docker" / "README.md").read_text()


def test_the_entrypoint_is_a_command_of_ours_on_a_mounted_file(
    spec: dict[str, Any], documents: dict[str, dict[str, Any]]
) -> None:
    program, command, file = shlex.split(spec["entrypoint"])
    assert program == "orpo-ray"
    assert command in typer.main.get_command(app).commands
    for pod in _pods(spec):
        (container,) = pod["spec"]["containers"]
        volumes = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        sources = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        configuration = sources[volumes[str(Path(file).parent)]]["configMap"]["name"]
        assert configuration == documents["ConfigMap"]["metadata"]["name"]
        assert Path(file).name in documents["ConfigMap"]["data"]


def test_every_pod_mounts_the_runs_storage(
    spec: dict[str, Any], documents: dict[str, dict[str, Any]], config: RunConfig
) -> None:
    for pod in _pods(spec):
        (container,) = pod["spec"]["containers"]
        (mount,) = [m for m in container["volumeMounts"] if Path(m["mountPath"]) in Path(config.storage.path).parents]
        (volume,) = [v for v in pod["spec"]["volumes"] if v["name"] == mount["name"]]
        claim = documents["PersistentVolumeClaim"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_models_lie_in_the_image(config: RunConfig) -> None:
    assert f"\nWORKDIR {IN_IMAGE.rstrip('/')}\n" in (ROOT / "docker" / "Dockerfile").read_text()
    for model in (config.student.model, config.teacher.model):
        assert model is not None
        assert model.startswith(IN_IMAGE)
        assert (ROOT / model.removeprefix(IN_IMAGE) / "config.json").is_file()


def test_the_workers_hold_what_the_run_asks_for(spec: dict[str, Any], config: RunConfig) -> None:
    cpus, memory = 0.0, 0
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        cpus += group["replicas"] * float(limits["cpu"])
        memory += group["replicas"] * int(limits["memory"].removesuffix("Gi")) * 2**30
    needs = required_resources(config).values()
    assert cpus >= max(need["CPU"] for need in needs) + spec["entrypointNumCpus"]
    assert memory >= max(need["memory"] for need in needs)


def test_the_teacher_is_reached_from_other_pods_but_not_from_outside(
    spec: dict[str, Any], documents: dict[str, dict[str, Any]], config: RunConfig
) -> None:
    assert config.teacher.serve.host == "0.0.0.0"
    policy = documents["NetworkPolicy"]["spec"]
    own = policy["podSelector"]["matchLabels"]
    for pod in _pods(spec):
        assert own.items() <= pod["metadata"]["labels"].items()
    peers, dashboard = policy["ingress"]
    assert peers == {"from": [{"podSelector": {"matchLabels": own}}]}
    assert dashboard == {"ports": [{"protocol": "TCP", "port": 8265}]}
