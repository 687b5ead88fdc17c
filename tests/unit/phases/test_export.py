"""What is exported of a student with adapters: the same student, however it was published and in whichever form."""

import json
from pathlib import Path
from typing import Any, Literal

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from orpo_ray.config.training import LoraConfig
from orpo_ray.phases.export import write_export
from orpo_ray.training.lora import adapt
from orpo_ray.training.model import load_student
from orpo_ray.training.publish import gather_student
from orpo_ray.weights.published import publish_directory
from tests.tiny.models import make_model

IDS = torch.arange(20)[None]


@pytest.fixture(scope="module")
def initial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student", "llama")


@pytest.fixture(scope="module")
def trained(initial: Path) -> Any:
    student = adapt(load_student(initial), LoraConfig(rank=4))
    torch.manual_seed(1)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return student.eval()


@pytest.mark.parametrize("adapter_only", [True, False])
@pytest.mark.parametrize("lora", ["merged", "adapter"])
def test_an_adapted_student(
    initial: Path, trained: Any, tmp_path: Path, adapter_only: bool, lora: Literal["merged", "adapter"]
) -> None:
    published = gather_student(trained, partitioned=False, rank=0, precision="fp32", adapter_only=adapter_only)
    version, target = tmp_path / "v000001-a001", tmp_path / "export"
    publish_directory(version, lambda path: published.write(path, initial), {"number": 1})
    target.mkdir()
    write_export(version, initial, target, lora, name="owner/student")
    if lora == "merged":
        assert not list(target.glob("adapter*"))
        found = AutoModelForCausalLM.from_pretrained(target)
        assert found.generation_config.eos_token_id == 2
    else:
        assert not (target / "config.json").exists()
        told = json.loads((target / "adapter_config.json").read_text())
        assert told["base_model_name_or_path"] == "owner/student"  # not a directory of this machine
        found = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(initial), str(target))
    assert not (target / "orpo_ray_version.json").exists()
    torch.testing.assert_close(found.eval()(IDS).logits, trained(IDS).logits, rtol=1e-5, atol=1e-5)
    assert AutoTokenizer.from_pretrained(target)("What is 1?").input_ids == (
        AutoTokenizer.from_pretrained(initial)("What is 1?").input_ids
    )


def test_a_student_without_adapters(initial: Path, tmp_path: Path) -> None:
    published = gather_student(load_student(initial), partitioned=False, rank=0, precision="bf16")
    publish_directory(tmp_path / "version", lambda path: published.write(path, initial), {"number": 1})
    (tmp_path / "export").mkdir()
    write_export(tmp_path / "version", initial, tmp_path / "export", "merged", name="owner/student")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "export").dtype == torch.bfloat16


def test_an_adapter_in_bf16_is_merged_in_bf16(initial: Path, trained: Any, tmp_path: Path) -> None:
    published = gather_student(trained, partitioned=False, rank=0, precision="bf16", adapter_only=True)
    publish_directory(tmp_path / "version", lambda path: published.write(path, initial), {"number": 1})
    (tmp_path / "export").mkdir()
    write_export(tmp_path / "version", initial, tmp_path / "export", "merged", name="owner/student")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float().eval()(IDS).logits, trained(IDS).logits, rtol=0.05, atol=0.05)
