"""The converted SmolLM2 is the model that it was: it answers in English, in transformers as in vLLM."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config.models import EngineConfig
from orpo_ray.engine.model_check import check_model
from orpo_ray.engine.vllm_engine import Completion, Draw, Engine
from orpo_ray.tasks.prompts import render_prompt

pytestmark = pytest.mark.slow

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="module")
def prompt(tokenizer: Any) -> list[int]:
    return render_prompt(tokenizer, [{"role": "user", "content": QUESTION}])


def test_the_prompt_is_chatml(tokenizer: Any, prompt: list[int]) -> None:
    assert tokenizer.decode(prompt) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_transformers_answers_in_english_and_ends_by_itself(smollm2: Path, tokenizer: Any, prompt: list[int]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype="auto")
    assert model.dtype is torch.bfloat16
    assert model.num_parameters() == 134_515_008
    tokens = model.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False)[0, len(prompt) :]
    assert "Paris" in tokenizer.decode(tokens)
    assert int(tokens[-1]) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_vllm_answers_in_english_and_ends_by_itself(smollm2: Path, prompt: list[int]) -> None:
    check_model(str(smollm2), "student")
    answer = asyncio.run(answered(smollm2, prompt))
    assert "Paris" in answer.text
    assert not answer.truncated


async def answered(model: Path, prompt: list[int]) -> Completion:
    config = EngineConfig(dtype="bfloat16", max_model_len=256, max_num_seqs=4, kv_cache_mib=64)
    engine = await Engine.start(str(model), config, threads=2)
    try:
        [answer] = await engine.sample(prompt, Draw(k=1, temperature=0.0, max_tokens=64, seed=0))
        return answer
    finally:
        engine.stop()
