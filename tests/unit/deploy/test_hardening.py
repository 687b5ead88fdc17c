"""What a careful cluster refuses, and what must never be in a manifest: no root, no open port, no secret."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.kuberay_rules import autoscaled, cluster, groups, pods, ray_container
from tests.unit.deploy.manifests import KUSTOMIZE, ROOT, SOURCES, load, ray_resource

Json = dict[str, Any]
GIB = 2**30
each_source = pytest.mark.parametrize("source", SOURCES, ids="/".join)


def contexts(resource: Json) -> list[Json]:
    """Security contexts of all containers, the autoscaler's, which KubeRay adds, among them."""
    found = [container["securityContext"] for pod in pods(resource) for container in pod["spec"]["containers"]]
    return found + ([cluster(resource)["autoscalerOptions"]["securityContext"]] if autoscaled(resource) else [])


@each_source
def test_pods_keep_to_the_standard_restricted(source: tuple[str, str]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, which the namespace enforces."""
    resource = ray_resource(load(source))
    for pod in pods(resource):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all(
            volume.keys() - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim"} for volume in spec["volumes"]
        )
    for context in contexts(resource):
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


@each_source
def test_roots_are_read_only_and_what_ray_writes_to_is_not(source: tuple[str, str]) -> None:
    resource = ray_resource(load(source))
    assert all(context["readOnlyRootFilesystem"] is True for context in contexts(resource))
    mounted = [ray_container(group)["volumeMounts"] for _, group in groups(resource)]
    mounted += (
        [[*cluster(resource)["autoscalerOptions"]["volumeMounts"], {"mountPath": "/dev/shm"}]]
        if autoscaled(resource)
        else []
    )
    for mounts in mounted:
        assert {"/tmp", "/home/ray", "/dev/shm"} <= {mount["mountPath"] for mount in mounts}
    assert "useradd --uid 1000 --create-home ray" in (ROOT / "docker" / "Dockerfile").read_text()


@each_source
def test_nobody_enters_without_the_token(source: tuple[str, str]) -> None:
    assert cluster(ray_resource(load(source)))["authOptions"] == {"mode": "token"}


@each_source
def test_the_head_does_no_work(source: tuple[str, str]) -> None:
    (_, head), *_ = groups(ray_resource(load(source)))
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in ray_container(head)["resources"]["limits"]


@each_source
def test_workers_cannot_talk_to_kubernetes(source: tuple[str, str]) -> None:
    resource = ray_resource(load(source))
    for name, group in groups(resource):
        # The head's is the autoscaler's, with a role that KubeRay makes for it.
        assert group["template"]["spec"].get("automountServiceAccountToken") is (None if name == "head" else False)
    if resource["kind"] == "RayJob":
        assert resource["spec"]["submitterPodTemplate"]["spec"]["automountServiceAccountToken"] is False


@each_source
def test_shared_memory_holds_the_object_store_and_the_pod_holds_both(source: tuple[str, str]) -> None:
    for _, group in groups(ray_resource(load(source))):
        (volume,) = [item for item in group["template"]["spec"]["volumes"] if item["name"] == "shared-mem"]
        assert volume["emptyDir"]["medium"] == "Memory"
        shared = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * GIB
        store = int(group["rayStartParams"]["object-store-memory"])
        memory = int(ray_container(group)["resources"]["limits"]["memory"].removesuffix("Gi")) * GIB
        assert store <= shared <= memory // 2


@each_source
def test_what_is_asked_for_is_what_is_kept(source: tuple[str, str]) -> None:
    """A pod with more limit than request is the first to be evicted, and Ray counts by the limit."""
    for _, group in groups(ray_resource(load(source))):
        resources = ray_container(group)["resources"]
        assert resources["requests"] == resources["limits"]


@each_source
def test_a_job_ends_and_goes_on(source: tuple[str, str]) -> None:
    resource = ray_resource(load(source))
    if resource["kind"] != "RayJob":
        return
    spec = resource["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["preRunningDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["entrypointNumCpus"] >= 1


@each_source
def test_the_network_policy_holds_for_every_pod_and_opens_no_port_to_all(source: tuple[str, str]) -> None:
    documents = load(source)
    resource = ray_resource(documents)
    policies = {item["metadata"]["name"]: item["spec"] for item in documents if item["kind"] == "NetworkPolicy"}
    policy = policies[resource["metadata"]["name"]]
    own = policy["podSelector"]["matchLabels"]
    for pod in pods(resource):
        assert own.items() <= pod["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    for each in policies.values():
        assert all(rule["from"] for rule in each["ingress"])
    # All ports only to pods of this run; the client's port and the GCS's to nobody else.
    for rule in policy["ingress"]:
        ports = {port["port"] for port in rule.get("ports", [])}
        if not ports:
            assert rule["from"] == [{"podSelector": {"matchLabels": own}}]
        assert ports <= {8265, 8000}
    (outside,) = [rule for rule in policy["egress"] if rule.get("to", [{}])[0].get("ipBlock")]
    assert "169.254.0.0/16" in outside["to"][0]["ipBlock"]["except"]


@each_source
def test_disruption_budgets_count_as_kubernetes_can(source: tuple[str, str]) -> None:
    """Pods of a custom resource: only minAvailable as a whole number holds; and it must name pods that there are."""
    documents = load(source)
    resource = ray_resource(documents)
    most = {name: group.get("maxReplicas", 1) for name, group in groups(resource)}
    budgets = [item for item in documents if item["kind"] == "PodDisruptionBudget"]
    assert budgets
    for budget in budgets:
        labels = dict(budget["spec"]["selector"]["matchLabels"])
        assert labels.pop("app.kubernetes.io/instance") == resource["metadata"]["name"]
        (label,) = labels.items()
        name = "head" if label == ("ray.io/node-type", "head") else label[1]
        # More than may be there would hold up a node that has none of them no less; fewer would let one go.
        assert budget["spec"]["minAvailable"] == most[name] or source[0] == "kustomize"


@each_source
def test_no_manifest_holds_a_secret(source: tuple[str, str]) -> None:
    for document in load(source):
        assert document["kind"] != "Secret"
        text = json.dumps(document)
        assert not re.search(r"hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{20}|AKIA[A-Z0-9]{16}|BEGIN [A-Z ]*PRIVATE KEY", text)
        for path, value in leaves(document):
            if re.search(r"(token|password|secret|api_?key)$", path, re.IGNORECASE) and isinstance(value, str):
                assert path.endswith(("authOptions.mode", "secret-name")), path


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}")]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner, path)]
    return [(path, value)]


def test_the_namespace_refuses_what_is_not_restricted() -> None:
    namespace = yaml.safe_load((KUSTOMIZE / "common" / "namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_manifest_is_left_out() -> None:
    """Every YAML file below deploy/ is read by one of the sources above, or is a kustomization or a configuration."""
    read = {"network-policy.yaml", "disruption-budgets.yaml", "rayjob.yaml", "raycluster.yaml", "rayservice.yaml"}
    read |= {"volumes.yaml", "namespace.yaml", "kustomization.yaml", "run.yaml", "queue.yaml", "storage-class.yaml"}
    read |= {"pod-monitor.yaml"}
    assert {path.name for path in KUSTOMIZE.rglob("*.yaml")} <= read
    assert Path(KUSTOMIZE, "base", "rayjob.yaml").is_file()
