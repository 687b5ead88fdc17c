"""`deploy render`: names, paths as pods see them, and what a configuration must not bring along."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import orpo_ray
from orpo_ray.config import RunConfig, parse_config
from orpo_ray.deploy.kuberay import RenderOptions, dump_manifests, in_pods, render, resource_name
from orpo_ray.errors import InputError

PACKAGE = Path(orpo_ray.__file__).parent


def config(**sections: Any) -> RunConfig:
    data: dict[str, Any] = {
        "name": "Arc.Tiny_1",
        "task": {"name": "arithmetic", "train_size": 10},
        "teacher": {"model": "owner/teacher"},
        "student": {"model": "owner/student"},
    }
    return parse_config(data | sections)


@pytest.mark.parametrize(("run", "name"), [("Arc.Tiny_1", "arc-tiny-1"), ("7b", "run-7b"), ("a" * 47, "a" * 47)])
def test_a_run_has_one_name_that_kubernetes_takes(run: str, name: str) -> None:
    assert resource_name(run) == name


def test_a_name_that_would_have_to_be_cut_is_refused() -> None:
    with pytest.raises(InputError, match="longer than the 47 characters"):
        resource_name("a" * 48)


def test_a_relative_storage_lies_on_the_volume() -> None:
    seen, mount = in_pods(config())
    assert (seen.storage.path, mount) == ("/storage/runs", "/storage")


def test_an_absolute_storage_is_mounted_where_the_configuration_has_it() -> None:
    seen, mount = in_pods(config(storage={"path": "/mnt/shared/orpo-ray"}))
    assert (seen.storage.path, mount) == ("/mnt/shared/orpo-ray", "/mnt/shared/orpo-ray")


def test_packaged_models_are_where_the_image_has_them() -> None:
    student = PACKAGE / "demo" / "models" / "student"
    seen, _ = in_pods(config(student={"model": str(student)}))
    assert seen.student.model == "/opt/orpo-ray/orpo_ray/demo/models/student"


def test_files_of_this_machine_are_all_named(tmp_path: Path) -> None:
    rows, model = tmp_path / "rows.jsonl", tmp_path / "student"
    rows.write_text("{}\n")
    model.mkdir()
    with pytest.raises(InputError) as refused:
        in_pods(config(task={"name": "gsm8k", "path": str(rows)}, student={"model": str(model)}))
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["student.model", "task.path"]
    assert all("copy it to the storage and give its path below /storage" in line for line in lines)


def test_files_on_the_storage_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    seen, _ = in_pods(config(storage={"path": str(tmp_path)}, student={"model": str(tmp_path / "student")}))
    assert seen.student.model == str(tmp_path / "student")


def test_only_a_teacher_of_ours_becomes_a_service() -> None:
    api = config(teacher={"backend": "openai", "model": "m", "base_url": "https://h/v1"})
    with pytest.raises(InputError, match=r"teacher\.backend: openai; only a teacher of ours"):
        render(api, RenderOptions(kind="teacher"))


def test_the_claim_holds_twice_what_the_run_writes() -> None:
    """A billion parameters: 48 GB of checkpoints and 8 GB of versions and export, 53 GiB."""
    documents = render(config(), RenderOptions(parameters=10**9))
    sizes = {
        item["metadata"]["name"]: item["spec"]["resources"]["requests"]["storage"]
        for item in documents
        if item["kind"] == "PersistentVolumeClaim"
    }
    assert sizes == {"orpo-ray-storage": "110Gi", "orpo-ray-models": "100Gi"}


def test_the_text_is_yaml_without_anchors_and_reads_back_the_same() -> None:
    documents = render(config(), RenderOptions(namespace="runs"))
    text = dump_manifests(documents)
    assert list(yaml.safe_load_all(text)) == documents
    assert "&id" not in text
    assert "run.yaml: |" in text
    assert {document["metadata"]["namespace"] for document in documents} == {"runs"}
