"""How versions of a student with adapters are published, by what vLLM has for its architecture."""

import json
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.errors import InputError
from orpo_ray.phases.adapters import settled_config
from orpo_ray.phases.context import RunContext
from tests.tiny.runs import context_of, tiny_config


def context_with(tmp_path: Path, architecture: str, lora: dict[str, Any] | None) -> RunContext:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return context_of(tiny_config(tmp_path / "runs", tmp_path / "student", train={"lora": lora}))


def published(context: RunContext) -> str:
    lora = settled_config(context).train.lora
    assert lora is not None
    return lora.publish


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GPTNeoXForCausalLM"])
def test_adapters_where_vllm_takes_them(tmp_path: Path, architecture: str) -> None:
    context = context_with(tmp_path, architecture, {})
    assert published(context) == "adapter"
    assert context.live["said"] == []
    assert settled_config(context) is settled_config(context)
    assert context.config.train.lora is not None
    assert context.config.train.lora.publish == "auto"  # the run's fingerprints do not depend on the machine


def test_whole_weights_elsewhere_and_it_is_said(tmp_path: Path) -> None:
    context = context_with(tmp_path, "GPT2LMHeadModel", {})
    assert published(context) == published(context) == "merged"
    assert context.live["said"] == [
        ("note", {"text": "train.lora.publish: merged weights, since vLLM takes no adapters for this student"})
    ]


def test_an_adapter_that_vllm_does_not_take(tmp_path: Path) -> None:
    context = context_with(tmp_path, "GPT2LMHeadModel", {"publish": "adapter"})
    with pytest.raises(InputError, match=r"train\.lora\.publish: `adapter`, but vLLM takes no LoRA adapters for this"):
        settled_config(context)


def test_whole_weights_where_they_are_asked_for(tmp_path: Path) -> None:
    assert published(context_with(tmp_path, "LlamaForCausalLM", {"publish": "merged"})) == "merged"


def test_a_run_without_adapters(tmp_path: Path) -> None:
    context = context_with(tmp_path, "LlamaForCausalLM", None)
    assert settled_config(context) is context.config
