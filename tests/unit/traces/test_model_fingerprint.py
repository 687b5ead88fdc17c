"""A model's fingerprint changes with what it samples, and with nothing else."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from orpo_ray.traces.model_fingerprint import model_fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "README.md").write_text("hello")
    weights = {f"layers.{layer}.weight": np.full((600, 600), layer, dtype=np.float32) for layer in range(3)}
    save_file(weights, directory / "model.safetensors")
    return directory


def test_it_is_the_same_for_a_copy_elsewhere_at_another_time(model: Path, tmp_path: Path) -> None:
    before = model_fingerprint(model)
    assert len(before) == 16
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    os.utime(copy / "model.safetensors", (0, 0))
    (copy / "README.md").write_text("goodbye")
    assert model_fingerprint(copy) == before


def test_it_sees_a_change_in_any_tensor_of_the_same_shape(model: Path) -> None:
    before = model_fingerprint(model)
    weights = load_file(model / "model.safetensors")
    weights["layers.1.weight"] += 1  # in the middle of the file: as a merged adapter leaves it
    save_file(weights, model / "model.safetensors")
    assert model_fingerprint(model) != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_it_sees_a_change_beside_the_weights(model: Path, name: str) -> None:
    before = model_fingerprint(model)
    (model / name).write_text('{"other": 1}')
    assert model_fingerprint(model) != before


def test_it_sees_a_new_chat_template(model: Path) -> None:
    before = model_fingerprint(model)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert model_fingerprint(model) != before


def test_broken_weights_have_a_fingerprint_too(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 100)
    (model / "pytorch_model.bin").write_bytes(b"x" * 3_000_000)
    assert len(model_fingerprint(model)) == 16


def test_a_hub_name_stands_for_itself() -> None:
    assert model_fingerprint("owner/name") == "owner/name"
