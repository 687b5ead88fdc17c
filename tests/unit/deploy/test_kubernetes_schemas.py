"""Kubernetes' own schemas, strictly: what stands beside KubeRay's resources, and the pods inside them."""

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy.kuberay_rules import pods
from tests.unit.deploy.manifests import SOURCES, TOOLS, load, ray_resource, rendered

Json = dict[str, Any]
# The oldest that docs/cluster.md names, and the newest that the tool knows.
VERSIONS = ("1.25.0", "1.37.0")
# Of others, whose schemas the tool does not have.
OTHERS = ("ray.io/v1", "monitoring.coreos.com/v1", "kueue.x-k8s.io/v1beta1")


def mistakes(documents: list[Json]) -> list[str]:
    if not list(TOOLS.parent.glob("lib/python*/site-packages/kubernetes_validate")):
        pytest.skip("kubernetes-validate is not here; `make tools` installs it")
    program = Path(__file__).with_name("tool_kubernetes.py")
    texts = {json.dumps(document, sort_keys=True) for document in documents}  # many sources write the same
    done = subprocess.run(
        [str(TOOLS / "python"), str(program), *VERSIONS],
        input=f"[{','.join(sorted(texts))}]",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def pods_of(documents: list[Json]) -> list[Json]:
    """Each pod as Kubernetes would be asked for it."""
    templates = copy.deepcopy(pods(ray_resource(documents)))
    for template in templates:
        template |= {"apiVersion": "v1", "kind": "Pod"}
        template["metadata"]["name"] = template["spec"]["containers"][0]["name"]
    return templates


def test_kubernetes_takes_every_document_and_every_pod() -> None:
    documents = [document for source in SOURCES for document in load(source) if document["apiVersion"] not in OTHERS]
    every_pod = [pod for source in SOURCES for pod in pods_of(load(source))]
    assert {document["kind"] for document in documents} == {
        "ConfigMap",
        "Namespace",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "StorageClass",
    }
    assert mistakes([*documents, *every_pod]) == []


@pytest.mark.parametrize("place", ["spec", "container"])
def test_a_misspelt_option_of_a_pod_is_found(place: str) -> None:
    """KubeRay's own schemas have pods too, but what they refuse is not what an older Kubernetes refuses."""
    pod = pods_of(rendered("job"))[0]
    (pod["spec"] if place == "spec" else pod["spec"]["containers"][0])["securityContxt"] = {}
    assert len(mistakes([pod])) == len(VERSIONS)
