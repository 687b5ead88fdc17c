"""InternLM2 directories as its hub has them: random weights under its own names, a sentencepiece model, its options."""

import json
from pathlib import Path
from typing import Any

TEXTS = [
    "What is 1 plus 2? The answer is 3.",
    "Count on from 4: the answer is 9.",
    "  Two  spaces, a tab\tand a line\nfeed.",
    "def add(a, b): return a + b",
]


def make_internlm2(
    path: Path, *, seed: int = 0, dummy_prefix: bool = True, binary: bool = False, **options: Any
) -> Path:
    """A model directory.

    Args:
        dummy_prefix: whether its sentencepiece model puts a space before a text.
        binary: weights as PyTorch saved them, in two files, instead of safetensors.
        options: of config.json, over small sizes with 4 query heads and 2 key/value heads.
    """
    path.mkdir(parents=True)
    vocabulary = write_sentencepiece(path, dummy_prefix)
    config: dict[str, Any] = {
        "architectures": ["InternLM2ForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
        "model_type": "internlm2",
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "float32",
        **options,
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": [2]}))
    _write_weights(path, config, seed, binary)
    return path


def random_weights(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """Weights under InternLM2's names; large enough for every part to move the output."""
    import torch

    torch.manual_seed(seed)
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = width // heads
    fused = (heads + 2 * (config["num_key_value_heads"] or heads)) * size

    def linear(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns) / columns**0.5

    state = {"model.tok_embeddings.weight": torch.randn(config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        state |= {
            prefix + "attention.wqkv.weight": 2 * linear(fused, width),
            prefix + "attention.wo.weight": linear(width, width),
            prefix + "feed_forward.w1.weight": linear(inner, width),
            prefix + "feed_forward.w2.weight": linear(width, inner),
            prefix + "feed_forward.w3.weight": linear(inner, width),
            prefix + "attention_norm.weight": 1 + 0.1 * torch.randn(width),
            prefix + "ffn_norm.weight": 1 + 0.1 * torch.randn(width),
        }
        if config["bias"]:
            state |= {
                prefix + "attention.wqkv.bias": torch.randn(fused),
                prefix + "attention.wo.bias": torch.randn(width),
            }
    state["model.norm.weight"] = 1 + 0.1 * torch.randn(width)
    if not config["tie_word_embeddings"]:
        state["output.weight"] = 3 * linear(config["vocab_size"], width)
    return state


def _write_weights(path: Path, config: dict[str, Any], seed: int, binary: bool) -> None:
    import torch
    from safetensors.torch import save_file

    state = random_weights(config, seed)
    if not binary:
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(state)
    for number, half in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        torch.save({name: state[name] for name in half}, path / f"pytorch_model-0000{number}-of-00002.bin")


def write_sentencepiece(path: Path, dummy_prefix: bool) -> int:
    """A sentencepiece model with byte fallback and unused places, and the options that its code reads; its size."""
    import sentencepiece

    corpus = path / "corpus.txt"
    corpus.write_text("\n".join(TEXTS * 20))
    sentencepiece.SentencePieceTrainer.Train(
        input=str(corpus),
        model_prefix=str(path / "tokenizer"),
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=dummy_prefix,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["[UNUSED_TOKEN_1]", "[UNUSED_TOKEN_2]"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    corpus.unlink()
    (path / "tokenizer.vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path / "tokenizer.model"))
    special = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {0: "<unk>", 1: "<s>", 2: "</s>"}
    added |= {processor.piece_to_id(f"[UNUSED_TOKEN_{n}]"): f"<|im_{end}|>" for n, end in ((1, "start"), (2, "end"))}
    (path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
                "tokenizer_class": "InternLM2Tokenizer",
                "added_tokens_decoder": {str(place): {"content": text, **special} for place, text in added.items()},
                "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
                "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>",
                "chat_template": "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
                "{{ message['content'] }}<|im_end|>\n{% endfor %}"
                "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
            }
        )
    )  # fmt: skip
    return int(processor.GetPieceSize())
