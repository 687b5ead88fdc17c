"""Adapters against peft's own forward pass, merging and loading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from orpo_ray.config.training import LoraConfig
from orpo_ray.errors import InputError
from orpo_ray.training.lora import adapt, count_trainable, lora_layers
from orpo_ray.training.publish import gather_student, write_model

Make = Callable[..., PreTrainedModel]
KINDS = ["llama", "qwen2", "qwen3", "mistral", "gpt_neox", "gpt2", "opt", "gemma2", "bloom"]
IDS = torch.arange(12)[None]


def moved(student: Any) -> Any:
    """Adapters as after training: B is no longer 0."""
    torch.manual_seed(5)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    return student.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_student_is_the_student_at_first(make_student: Make, kind: str) -> None:
    expected = make_student(kind)(IDS).logits
    adapted = adapt(make_student(kind), LoraConfig(rank=3)).eval()
    torch.testing.assert_close(adapted(IDS).logits, expected, rtol=0, atol=0)
    trainable = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_published_whole_is_what_peft_merges(make_student: Make, kind: str, tmp_path: Path) -> None:
    make_student(kind).save_pretrained(str(tmp_path / "base"))
    student = moved(adapt(make_student(kind), LoraConfig(rank=3, alpha=5)))
    adapted = student(IDS).logits
    published = gather_student(student, partitioned=False, rank=0, precision="fp32")
    (tmp_path / "whole").mkdir()
    published.write(tmp_path / "whole", tmp_path / "base")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(whole(IDS).logits, adapted, rtol=1e-4, atol=1e-4)
    expected = student.merge_and_unload().state_dict()
    found = whole.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    check_adapter(tmp_path / "whole" / "adapter", tmp_path / "base", adapted)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_published_as_an_adapter_is_what_peft_loads(make_student: Make, kind: str, tmp_path: Path) -> None:
    make_student(kind).save_pretrained(str(tmp_path / "base"))
    student = moved(adapt(make_student(kind), LoraConfig(rank=3, alpha=5)))
    published = gather_student(student, partitioned=False, rank=0, precision="fp32", adapter_only=True)
    (tmp_path / "version").mkdir()
    published.write(tmp_path / "version", tmp_path / "base")
    assert sorted(file.name for file in (tmp_path / "version").glob("*.*")) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert published.nbytes == sum(t.nbytes for t in load_file(tmp_path / "version/adapter_model.safetensors").values())
    check_adapter(tmp_path / "version", tmp_path / "base", student(IDS).logits)
    assert student.peft_config["default"].inference_mode is False


def check_adapter(directory: Path, base: Path, expected: torch.Tensor) -> None:
    loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(directory)).eval()
    torch.testing.assert_close(loaded(IDS).logits, expected, rtol=1e-5, atol=1e-5)


def test_a_student_without_adapters_is_published_as_ever(make_student: Make, tmp_path: Path) -> None:
    student = make_student("llama")
    student.save_pretrained(str(tmp_path / "base"))
    published = gather_student(student, partitioned=False, rank=0, precision="bf16")
    assert not published.adapter
    (tmp_path / "version").mkdir()
    published.write(tmp_path / "version", tmp_path / "base")
    assert not (tmp_path / "version" / "adapter").exists()
    found = load_file(tmp_path / "version" / "model.safetensors")
    assert all(torch.equal(tensor, student.state_dict()[name].bfloat16()) for name, tensor in found.items())
    (tmp_path / "again").mkdir()
    write_model(tmp_path / "again", published.weights, tmp_path / "version")  # a version is a template too


def test_only_the_layers_that_are_named(make_student: Make) -> None:
    student = adapt(make_student("llama"), LoraConfig(target_modules=["q_proj", "layers.1.mlp.up_proj"]))
    assert {name.removeprefix("base_model.model.model.layers.") for name, _ in lora_layers(student)} == {
        "0.self_attn.q_proj", "1.self_attn.q_proj", "1.mlp.up_proj",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "target", "there"),
    [
        ("llama", "c_attn", "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        ("qwen2", "lm_head", "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        ("gpt2", "wte", "c_attn, c_fc, c_proj"),
    ],
)
def test_a_layer_that_is_not_there(make_student: Make, kind: str, target: str, there: str) -> None:
    name = f"train.lora.target_modules: {target} ends the name of no linear layer of the student ({kind})"
    with pytest.raises(InputError) as error:
        adapt(make_student(kind), LoraConfig(target_modules=["q_proj", target] if kind != "gpt2" else [target]))
    assert str(error.value) == f"{name} but its output layer; there are {there}"


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_counted_without_weights(make_student: Make, kind: str, tmp_path: Path) -> None:
    make_student(kind).config.save_pretrained(str(tmp_path))
    trainable = sum(p.numel() for p in adapt(make_student(kind), LoraConfig(rank=3)).parameters() if p.requires_grad)
    assert count_trainable(tmp_path, LoraConfig(rank=3)) == trainable
