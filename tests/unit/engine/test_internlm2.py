"""InternLM2 in the Llama layout: exact values by an own forward pass of InternLM2, and tokens by sentencepiece itself."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from orpo_ray.engine.internlm2 import is_internlm2, write_llama
from orpo_ray.errors import InputError
from tests.tiny.internlm2 import TEXTS, make_internlm2, random_weights

SIZES: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "one key/value head": {"num_key_value_heads": 1, "rope_scaling": None},
    "as many key/value heads": {"num_key_value_heads": 4, "rope_theta": 10000.0},
    "biases": {"bias": True},
    "grouped heads, biases, linear scaling": {"bias": True, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "tied, six heads on two": {
        "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip


def internlm2_logits(config: dict[str, Any], state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """[T, V] in float64: InternLM2's own layers (arXiv 2403.17297 and its published code), head by head.

    `wqkv`'s output is [T, G, H / G + 2, E]: for each key/value head its query heads, its key, its value. Positions are
    rotated in halves (x1, x2) → (x1 cos - x2 sin, x2 cos + x1 sin).
    """
    state = {name: tensor.double() for name, tensor in state.items()}
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size, count = config["hidden_size"] // heads, len(ids)
    factor = (config["rope_scaling"] or {}).get("factor", 1.0)
    stretch = factor if (config["rope_scaling"] or {}).get("type") == "linear" else 1.0
    frequency = config["rope_theta"] ** (-torch.arange(0, size, 2).double() / size)
    angle = torch.arange(count).double()[:, None] / stretch * frequency

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt() * weight

    def rotated(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[name + ".weight"].T + state.get(name + ".bias", 0.0)

    hidden = state["model.tok_embeddings.weight"][ids]
    unseen = torch.ones(count, count).triu(1).bool()
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        x = norm(hidden, state[prefix + "attention_norm.weight"])
        fused = linear(x, prefix + "attention.wqkv").view(count, groups, heads // groups + 2, size)
        attended = torch.empty(count, groups, heads // groups, size, dtype=torch.float64)
        for group in range(groups):
            key, value = rotated(fused[:, group, -2]), fused[:, group, -1]
            for head in range(heads // groups):
                scores = rotated(fused[:, group, head]) @ key.T / size**0.5
                attended[:, group, head] = scores.masked_fill(unseen, -torch.inf).softmax(-1) @ value
        hidden = hidden + linear(attended.reshape(count, -1), prefix + "attention.wo")
        x = norm(hidden, state[prefix + "ffn_norm.weight"])
        gate = torch.nn.functional.silu(linear(x, prefix + "feed_forward.w1"))
        hidden = hidden + linear(gate * linear(x, prefix + "feed_forward.w3"), prefix + "feed_forward.w2")
    output = state.get("output.weight", state["model.tok_embeddings.weight"])
    return norm(hidden, state["model.norm.weight"]) @ output.T


def converted(source: Path, target: Path) -> Path:
    target.mkdir()
    write_llama(source, target)
    return target


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_converted_model_computes_what_internlm2_does(tmp_path: Path, sizes: dict[str, Any]) -> None:
    source = make_internlm2(tmp_path / "internlm2", **sizes)
    assert is_internlm2(source)
    config = json.loads((source / "config.json").read_text())
    ids = torch.randint(0, config["vocab_size"], (40,), generator=torch.Generator().manual_seed(1))
    expected = internlm2_logits(config, random_weights(config, seed=0), ids)
    model = AutoModelForCausalLM.from_pretrained(converted(source, tmp_path / "llama"), dtype=torch.float64)
    assert not is_internlm2(tmp_path / "llama")
    assert model.config.model_type == "llama"
    found = model(ids[None]).logits[0]
    # transformers works out the rotations in float32, whatever the model is in
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=5e-5)


def test_weights_that_pytorch_saved_in_parts(tmp_path: Path) -> None:
    whole = converted(make_internlm2(tmp_path / "a"), tmp_path / "whole")
    parts = converted(make_internlm2(tmp_path / "b", binary=True), tmp_path / "parts")
    assert sorted(file.name for file in parts.glob("model*")) == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
    ]  # fmt: skip
    one, other = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dummy_prefix", [True, False])
def test_the_tokenizer_is_sentencepieces_own(tmp_path: Path, dummy_prefix: bool) -> None:
    source = make_internlm2(tmp_path / "internlm2", dummy_prefix=dummy_prefix)
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    tokenizer = AutoTokenizer.from_pretrained(converted(source, tmp_path / "llama"))
    generator = random.Random(0)
    alphabet = "".join(TEXTS) + "é漢🙂ß \n"
    texts = [*TEXTS, *("".join(generator.choices(alphabet, k=generator.randrange(1, 60))) for _ in range(300))]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == oracle.encode(text), repr(text)
        assert tokenizer.decode(ids) == text
    assert tokenizer("The answer").input_ids == [1, *oracle.encode("The answer")]


def test_special_tokens_in_unused_places(tmp_path: Path) -> None:
    source = make_internlm2(tmp_path / "internlm2")
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    tokenizer = AutoTokenizer.from_pretrained(converted(source, tmp_path / "llama"))
    start, end = (oracle.piece_to_id(f"[UNUSED_TOKEN_{n}]") for n in (1, 2))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 1?"}], add_generation_prompt=True, return_dict=False
    )
    assert ids == [
        1, start, *oracle.encode("user\nWhat is 1?"), end, *oracle.encode("\n"), start, *oracle.encode("assistant\n"),
    ]  # fmt: skip
    assert tokenizer.decode([start, *oracle.encode("The answer"), end], skip_special_tokens=True) == "The answer"


def test_a_fast_tokenizer_is_taken_as_it_is(tmp_path: Path) -> None:
    source = make_internlm2(tmp_path / "internlm2")
    first = converted(source, tmp_path / "first")
    (source / "tokenizer.json").write_bytes((first / "tokenizer.json").read_bytes())
    (source / "tokenizer.model").unlink()
    tokenizer = AutoTokenizer.from_pretrained(converted(source, tmp_path / "second"))
    before = AutoTokenizer.from_pretrained(first)
    assert [tokenizer(text).input_ids for text in TEXTS] == [before(text).input_ids for text in TEXTS]
    assert tokenizer.chat_template == before.chat_template
    assert tokenizer.all_special_ids == before.all_special_ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling of type 'yarn'; known are dynamic and lin"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"num_key_value_heads": 3}, "each must be divisible by the next"),
        ({"quantization_config": {"bits": 4}}, "quantised weights cannot be trained"),
        ({"num_hidden_layers": 3}, "lacks 9 tensors"),
        ({"bias": True}, r"lacks 8 tensors \(in the Llama layout: model.layers.0.self_attn.k_proj.bias"),
    ],
)
def test_what_cannot_be_said_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = make_internlm2(tmp_path / "internlm2")
    file = source / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | options))
    with pytest.raises(InputError, match=message):
        converted(source, tmp_path / "llama")


def test_a_tensor_that_internlm2_does_not_have(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = make_internlm2(tmp_path / "internlm2")
    state = load_file(source / "model.safetensors") | {"model.layers.0.attention.q_norm.weight": torch.ones(4)}
    save_file(state, source / "model.safetensors")
    with pytest.raises(InputError, match=r"a tensor model\.layers\.0\.attention\.q_norm\.weight, which InternLM2 does"):
        converted(source, tmp_path / "llama")
