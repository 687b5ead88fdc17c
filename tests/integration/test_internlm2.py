"""An InternLM2 student: vLLM's own InternLM2 model, which we did not write, against the converted Llama."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from orpo_ray.config.models import EngineConfig
from orpo_ray.engine.internlm2 import write_llama
from orpo_ray.engine.vllm_engine import Completion, Draw, Engine
from orpo_ray.training.publish import gather_weights, write_model
from tests.tiny.internlm2 import make_internlm2

pytestmark = pytest.mark.timeout(900)

CONFIG = EngineConfig(dtype="float32", max_model_len=128, max_num_seqs=32, kv_cache_mib=32)
PROMPTS = ["What is 1 plus 2?", "Count on from 4: the answer is", "x"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM on a CPU wants heads of at least 32
    return make_internlm2(tmp_path_factory.mktemp("models") / "internlm2", hidden_size=128)


@pytest.fixture(scope="module")
def llama(source: Path) -> Path:
    target = source.with_name("llama")
    target.mkdir()
    write_llama(source, target)
    return target


@pytest.fixture(scope="module")
def oracle(source: Path, llama: Path) -> list[list[Completion]]:
    """What vLLM's InternLM2ForCausalLM makes of the unconverted weights, greedily and with log-probabilities.

    Its configuration class is remote code; the fields that the model reads are those of Llama's.
    """
    directory = Path(shutil.copytree(llama, source.with_name("oracle")))
    shutil.copy(source / "model.safetensors", directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["InternLM2ForCausalLM"]}))
    return sampled(directory, llama)


def sampled(model: Path, tokenizer: Path) -> list[list[Completion]]:
    encode = AutoTokenizer.from_pretrained(tokenizer)
    draw = Draw(k=1, temperature=0.0, max_tokens=24, seed=0, logp=True)

    async def answers() -> list[list[Completion]]:
        engine = await Engine.start(str(model), CONFIG, threads=1)
        try:
            return await engine.sample_all([encode(text).input_ids for text in PROMPTS], [draw] * len(PROMPTS))
        finally:
            engine.stop()

    return asyncio.run(answers())


def test_transformers_on_the_converted_model(oracle: list[list[Completion]], llama: Path) -> None:
    model, encode = AutoModelForCausalLM.from_pretrained(llama).eval(), AutoTokenizer.from_pretrained(llama)
    for text, [expected] in zip(PROMPTS, oracle, strict=True):
        prompt = encode(text, return_tensors="pt").input_ids
        tokens = model.generate(prompt, do_sample=False, max_new_tokens=24)[0, prompt.shape[1] :]
        assert tokens.tolist() == expected.token_ids
        with torch.no_grad():
            logits_TV = model(torch.cat([prompt[0], tokens])[None]).logits[0, prompt.shape[1] - 1 : -1]
        logp = torch.log_softmax(logits_TV, -1).gather(1, tokens[:, None]).mean().item()
        assert logp == pytest.approx(expected.logp, abs=1e-4)


def test_vllm_on_the_converted_model_and_on_what_is_exported(
    oracle: list[list[Completion]], llama: Path, tmp_path: Path
) -> None:
    state = gather_weights(AutoModelForCausalLM.from_pretrained(llama), partitioned=False, rank=0)
    write_model(tmp_path, state, llama)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    for [found], [expected] in zip(sampled(tmp_path, tmp_path), oracle, strict=True):
        assert found.token_ids == expected.token_ids
        assert found.logp == pytest.approx(expected.logp, abs=1e-4)
