"""What a run asks of its machines, counted by hand."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.errors import InputError
from orpo_ray.phases.needs import (
    GIB,
    adapter_parameters,
    check_fits,
    count_parameters,
    disk_bytes,
    groups_by_phase,
    logical_cpus,
    machine_memory,
    required_resources,
)


def config(
    resources: dict[str, Any] | None = None,
    teacher: dict[str, Any] | None = None,
    workers: int = 2,
    gpu_memory: float = 0.9,
) -> RunConfig:
    return parse_config(
        {
            "task": {"name": "arithmetic"},
            "teacher": teacher or {"model": "models/teacher"},
            "student": {"model": "models/student", "engine": {"gpu_memory": gpu_memory}},
            "train": {"workers": workers},
            "resources": resources or {},
        }
    )


def test_the_embedded_default_counted_by_hand() -> None:
    """Engines 2.5 GiB; train workers 1.5 GiB and 16 bytes for each of 64 Mi parameters, which is another GiB."""
    needs = required_resources(config(), parameters=64 << 20)
    # One replica, the ingress, the teacher's client and judge, one data task.
    assert needs["TEACH"] == {"CPU": 2.7, "GPU": 0, "memory": 2.5 * GIB}
    # A sampler, one data task, and the evaluator, which begins with the initial student.
    assert needs["SEED"] == {"CPU": 3, "GPU": 0, "memory": 2 * 2.5 * GIB}
    # A sampler, the evaluator, two workers, one data task.
    assert needs["DISTILL"] == {"CPU": 5, "GPU": 0, "memory": (2.5 + 2.5 + 2 * 2.5) * GIB}
    assert needs["EVALUATE"] == {"CPU": 1, "GPU": 0, "memory": 2.5 * GIB}


def test_gpus_and_half_cpus() -> None:
    resources = {"samplers": 4, "sampler_gpus": 1, "sampler_cpus": 0.5, "evaluator_gpus": 0.5, "trainer_gpus": 1}
    needs = required_resources(config(resources, workers=4, gpu_memory=0.5))
    assert needs["DISTILL"] == {"CPU": 4 * 0.5 + 1 + 4 + 1, "GPU": 4 + 0.5 + 4, "memory": 0}
    assert needs["SEED"]["GPU"] == 4 + 0.5


def test_recorded_traces_need_no_replica() -> None:
    assert required_resources(config(teacher={"backend": "recorded", "path": "x.jsonl"}))["TEACH"]["CPU"] == 1.6


def test_a_second_client_from_257_requests_in_flight_on() -> None:
    for requests, clients in ((256, 1), (257, 2)):
        teacher = {"backend": "openai", "model": "m", "base_url": "http://host/v1", "concurrency": requests}
        assert required_resources(config(teacher=teacher))["TEACH"]["CPU"] == round(1 + 0.6 * clients, 3)


def test_the_embedded_cluster_has_room_for_the_greediest_phase_and_one_more() -> None:
    assert logical_cpus(config(), physical=2) == 6
    assert logical_cpus(config(), physical=64) == 64


def test_what_does_not_fit_says_what_is_asked_by_whom_and_what_is_there() -> None:
    with pytest.raises(InputError) as refused:
        check_fits(config({"samplers": 3, "sampler_cpus": 2}), {"CPU": 4.0, "GPU": 0.0})
    assert str(refused.value) == (
        "resources that do not fit: asked is 10 CPUs (DISTILL: 3 samplers × 2, 1 evaluator × 1, 2 train workers × 1, "
        "1 data task × 1), there is 4 CPUs; lower what `resources` and train.workers ask, or give Ray more CPUs"
    )


def test_memory_and_gpus_that_do_not_fit_are_both_named() -> None:
    with pytest.raises(InputError) as refused:
        check_fits(config({"trainer_gpus": 1}), {"CPU": 99, "GPU": 1, "memory": 4 * GIB})
    gpus, memory = str(refused.value).splitlines()
    assert gpus.startswith(
        "resources that do not fit: asked is 2 GPUs (DISTILL: 2 train workers × 1), there is 1 GPU; "
    )
    assert memory.startswith(
        "resources that do not fit: asked is 5.0 GiB of memory (SEED: 1 sampler × 2.5 GiB, 1 evaluator × 2.5 GiB), "
        "there is 4.0 GiB of memory; lower resources.samplers or train.workers, or take a larger machine"
    )


def test_what_fits_exactly_fits() -> None:
    check_fits(config(), {"CPU": 5.0, "GPU": 0.0, "memory": 8 * GIB})


def test_the_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    machine = machine_memory(tmp_path)
    assert machine > GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory(tmp_path) == machine
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    assert machine_memory(tmp_path) == GIB


def write_headers(directory: Path, *files: dict[str, list[int]]) -> None:
    for place, shapes in enumerate(files):
        header: dict[str, Any] = {
            name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()
        }
        text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
        (directory / f"model-{place}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)


def with_lora(model: Path, **lora: Any) -> RunConfig:
    options = config().model_dump(by_alias=True)
    options["student"]["model"] = str(model)
    return parse_config(options | {"train": options["train"] | {"checkpoints_kept": 2, "lora": lora}})


def test_with_adapters_checkpoints_and_versions_are_theirs(tmp_path: Path) -> None:
    write_headers(tmp_path, {"a": [300, 500], "b": [500, 300], "norm": [500]})
    weights = (tmp_path / "model-0.safetensors").stat().st_size
    trained = 4 * (300 + 500) * 2
    assert adapter_parameters(str(tmp_path), rank=4) == trained
    assert disk_bytes(with_lora(tmp_path, rank=4)) == 3 * 16 * trained + 3 * 4 * trained + weights + GIB // 2
    merged = disk_bytes(with_lora(tmp_path, rank=4, publish="merged"))
    assert merged == 3 * 16 * trained + 3 * weights + weights + GIB // 2


def test_a_mirror_holds_one_checkpoint_more_while_it_is_on_its_way(tmp_path: Path) -> None:
    write_headers(tmp_path, {"a": [100, 100]})
    plain = with_lora(tmp_path, rank=4)
    storage = plain.storage.model_copy(update={"mirror": "s3://bucket/runs"})
    mirrored = plain.model_copy(update={"storage": storage})
    assert disk_bytes(mirrored) - disk_bytes(plain) == 16 * adapter_parameters(str(tmp_path), rank=4)


def test_a_worker_with_adapters_holds_the_frozen_weights_once(tmp_path: Path) -> None:
    def worker(settings: RunConfig) -> int:
        groups = groups_by_phase(settings, parameters=100 << 20)["DISTILL"]
        return next(group.memory for group in groups if group.name == "train worker")

    assert worker(config()) - worker(with_lora(tmp_path)) == (16 - 5) * (100 << 20)


def test_parameters_are_counted_from_the_headers(tmp_path: Path) -> None:
    write_headers(tmp_path, {"a": [3, 5], "b": [7]}, {"c": []})
    assert count_parameters(str(tmp_path)) == 3 * 5 + 7 + 1
    assert count_parameters("owner/name-on-the-hub") == 0
