"""Tiny random students of each architecture, and pair groups with every shape that matters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from orpo_ray.training.batching import TokenGroup

VOCAB = 67
ROTARY = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", ROTARY | GROUPED | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", ROTARY | GROUPED),
    "qwen3": ("Qwen3", ROTARY | GROUPED | {"head_dim": 8}),
    "mistral": ("Mistral", ROTARY | GROUPED | {"sliding_window": None}),
    "gpt_neox": ("GPTNeoX", ROTARY | {"num_attention_heads": 4, "intermediate_size": 48}),
    "gpt2": ("GPT2", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "opt": ("OPT", ROTARY | {"num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "gemma2": ("Gemma2", ROTARY | GROUPED | {"head_dim": 8, "final_logit_softcapping": 5.0}),
    "bloom": ("Bloom", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
}


@pytest.fixture
def make_student() -> Callable[..., PreTrainedModel]:
    def make(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
        name, shape = SHAPES[kind]
        config = getattr(transformers, f"{name}Config")(
            **{**shape, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, **changes}
        )
        class_name = "GPT2LMHeadModel" if kind == "gpt2" else f"{name}ForCausalLM"
        torch.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, class_name)(config)
        # The usual initialisation is so small that a wrong mask moves the loss by less than rounding does.
        for parameter in model.parameters():
            parameter.data.normal_(std=0.3) if parameter.dim() > 1 else parameter.data.add_(
                torch.randn_like(parameter) * 0.1
            )
        return model.eval()

    return make


@pytest.fixture
def groups() -> list[TokenGroup]:
    """Traces used by several pairs, a trace of one token, a prompt of one token, no rejected trace, a padding row."""
    torch.manual_seed(7)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCAB, (count,)).tolist())

    return [
        TokenGroup(
            tokens(9), (tokens(5), tokens(8)), (tokens(4), tokens(1), tokens(7)), ((0, 0), (1, 1), (0, 2), (1, 0))
        ),
        TokenGroup(tokens(1), (tokens(3),), (tokens(6),), ((0, 0),), name="short prompt"),
        TokenGroup(tokens(6), (tokens(4), tokens(2)), (), ((0, -1), (1, -1)), name="sft row"),
        TokenGroup(tokens(5), (tokens(2),), (tokens(2),), ((0, 0),), weight=0.0, name="padding row"),
    ]
