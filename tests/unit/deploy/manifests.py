"""Every manifest of deploy/: the files, what kustomize and Helm make of them, and what `deploy render` writes."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from orpo_ray.config import load_config
from orpo_ray.deploy.kuberay import RenderOptions, dump_manifests, render

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
KUSTOMIZE = ROOT / "deploy" / "kustomize"
CHART = ROOT / "deploy" / "helm" / "orpo-ray"
SHARED = Path(os.environ.get("ORPO_RAY_SHARED_DIR", ROOT.parent / "shared"))
TOOLS = ROOT / ".tools" / "bin"  # `make tools`

OVERLAYS = ("cpu", "gpu", "kueue", "spot", "s3", "juicefs")
KINDS = {"base": "job", "cluster": "cluster", "teacher": "teacher", "service": "service"}
GPU_PARAMETERS = 1_100_000_000
# What each source is compared with: the same run, written by `deploy render`.
RENDERED: dict[str, tuple[str, list[str], RenderOptions]] = {
    "job": ("base/run.yaml", [], RenderOptions()),
    "cluster": ("base/run.yaml", ["name=orpo-ray"], RenderOptions(kind="cluster")),
    "teacher": ("teacher/run.yaml", [], RenderOptions(kind="teacher")),
    "service": ("base/run.yaml", ["name=orpo-ray-service"], RenderOptions(kind="service")),
    "gpu": ("components/gpu/run.yaml", [], RenderOptions(parameters=GPU_PARAMETERS)),
    "kueue": ("base/run.yaml", [], RenderOptions(queue="orpo-ray")),
    "monitored": ("base/run.yaml", [], RenderOptions(monitored=True, namespace="runs")),
    "api": (
        "base/run.yaml",
        ["teacher={backend: openai, model: m, base_url: 'https://h/v1', api_key_env: TEACHER_KEY}"],
        RenderOptions(autoscaled=False),
    ),
    "mirror": ("base/run.yaml", ["storage.mirror=s3://my-bucket/orpo-ray"], RenderOptions()),
    "colocated": (
        "components/gpu/run.yaml",
        [
            "train.workers=1",
            "student.engine.gpu_memory=0.2",
            "resources={samplers: 1, sampler_gpus: 0.2, evaluator_gpus: 0.2, trainer_gpus: 0.6, teacher_gpus: 1}",
        ],
        RenderOptions(parameters=GPU_PARAMETERS),
    ),
}
# Values that the chart is tried with.
VALUES: dict[str, Json] = {
    "job": {},
    "cluster": {"kind": "cluster", "name": "orpo-ray"},
    "teacher": {"kind": "teacher", "runFile": (KUSTOMIZE / "teacher" / "run.yaml").read_text()},
    "service": {"kind": "service", "name": "orpo-ray-service"},
    "kueue": {"queue": "orpo-ray"},
    "monitored": {"monitoring": {"enabled": True}},
    "other volumes": {"storage": {"existingClaim": "mine"}, "models": {"storageClassName": "fast"}},
    "file": {"runFile": (KUSTOMIZE / "base" / "run.yaml").read_text() + "  failures: 7\n"},
    "mirror": {
        "runFile": (KUSTOMIZE / "base" / "run.yaml")
        .read_text()
        .replace("storage:\n", "storage:\n  mirror: s3://my-bucket/orpo-ray\n"),
        "secretEnv": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"],
    },
    "gpus": {
        "apiKeyEnv": "TEACHER_KEY",
        "groups": {"trainers": {"gpus": 4, "cpu": "16", "tolerations": [{"key": "spot", "operator": "Exists"}]}},
    },
}


def documents(text: str) -> list[Json]:
    return [document for document in yaml.safe_load_all(text) if document]


@cache
def rendered(name: str) -> list[Json]:
    """What `orpo-ray deploy render` writes, read back."""
    file, overrides, options = RENDERED[name]
    return documents(dump_manifests(render(load_config(KUSTOMIZE / file, overrides), options)))


@cache
def files(name: str) -> list[Json]:
    """The documents beside a kustomization, and those that every one has, as they are written."""
    paths = [
        path
        for path in sorted((KUSTOMIZE / name).glob("*.yaml"))
        if path.name not in ("kustomization.yaml", "run.yaml")
    ]
    return [
        document for path in [*paths, KUSTOMIZE / "common" / "volumes.yaml"] for document in documents(path.read_text())
    ]


@cache
def kustomized(folder: str) -> list[Json]:
    """What kustomize makes of a folder; skips where there is none."""
    for program, command in (("kustomize", ["kustomize", "build"]), ("kubectl", ["kubectl", "kustomize"])):
        if shutil.which(program):
            built = subprocess.run([*command, str(KUSTOMIZE / folder)], capture_output=True, text=True)
            assert built.returncode == 0, built.stderr
            return documents(built.stdout)
    pytest.skip("neither kustomize nor kubectl is on the PATH")


@cache
def templated(name: str) -> list[Json]:
    """What Helm makes of the chart with VALUES[name]; skips where there is no Helm."""
    return documents(
        "\n---\n".join(text for file, text in helm("render", VALUES[name]).items() if file.endswith(".yaml"))
    )


def helm(action: str, values: Json) -> Any:
    """`render`: text by template; `lint`: messages; `refused`: why the values are refused. Skips without Helm's library."""
    if not (TOOLS / "python").exists():
        pytest.skip("Helm's library is not here; `make tools` installs it")
    program = Path(__file__).with_name("tool_helm.py")
    done = subprocess.run(
        [str(TOOLS / "python"), str(program), action, str(CHART), json.dumps(values)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_name(found: list[Json]) -> dict[tuple[str, str], Json]:
    named = {(document["kind"], document["metadata"]["name"]): document for document in found}
    assert len(named) == len(found)
    return named


def ray_resource(found: list[Json]) -> Json:
    """The one custom resource of KubeRay."""
    (resource,) = [document for document in found if document["apiVersion"] == "ray.io/v1"]
    return resource


SOURCES = (
    [("files", name) for name in KINDS]
    + [("kustomize", f"overlays/{name}") for name in OVERLAYS]
    + [("kustomize", name) for name in KINDS]
    + [("render", name) for name in RENDERED]
    + [("helm", name) for name in VALUES]
)


def load(source: tuple[str, str]) -> list[Json]:
    how, name = source
    return {"files": files, "kustomize": kustomized, "render": rendered, "helm": templated}[how](name)
