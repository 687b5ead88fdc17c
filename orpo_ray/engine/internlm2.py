"""InternLM2 students in the Llama layout, which transformers has without anybody's remote code, and vLLM too.

InternLM2 (arXiv 2403.17297) computes what Llama computes, under other names: its one projection `wqkv` holds, for each
key/value head in turn, the query heads that share it, then the key head, then the value head. So a conversion moves
rows, and rounds nothing.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_ray.engine.internlm2_tokenizer import write_tokenizer
from orpo_ray.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MODEL_TYPE = "internlm2"
LAYOUT = 1
"""Raised whenever the conversion writes something else: an older conversion is then not found again."""

# What a configuration that leaves an option out means by it (InternLM2Config).
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 103168,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_NAMES = {
    "model.tok_embeddings.weight": "model.embed_tokens.weight",
    "model.norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "ffn_norm": "post_attention_layernorm",
}
_CARRIED_OVER = ("generation_config.json", "LICENSE*", "NOTICE*", "chat_template.jinja")


def is_internlm2(directory: Path) -> bool:
    """Whether a model directory's configuration says `"model_type": "internlm2"`."""
    try:
        return bool(json.loads((directory / "config.json").read_text(encoding="utf-8"))["model_type"] == MODEL_TYPE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_llama(source: Path, target: Path) -> None:
    """Fill `target` with the InternLM2 model of `source` as a Llama model: weights, configuration, tokenizer.

    One file of weights is in memory at a time.

    Raises:
        InputError: something in `source` that the Llama layout cannot say, or that is not InternLM2's.
    """
    config = read_config(source)
    _write_weights(source, target, config)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for pattern in _CARRIED_OVER:
        for file in source.glob(pattern):
            shutil.copy(file, target / file.name)
    write_tokenizer(source, target)


def read_config(source: Path) -> dict[str, Any]:
    """The configuration of a Llama model that computes what the InternLM2 model in `source` does.

    Scaling `dynamic` is left out: up to `max_position_embeddings`, beyond which no engine or trainer here goes, it
    changes nothing, while vLLM applies it at every length and would sample from another model than the one trained.

    Raises:
        InputError: an option that the Llama layout has no word for.
    """
    where = f"student.model: {source}"
    given = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if given.get("quantization_config"):
        raise InputError(f"{where}: quantised weights cannot be trained; give the unquantised model")
    config = {name: given.get(name, default) for name, default in _DEFAULTS.items()}
    heads = config["num_attention_heads"]
    groups = config["num_key_value_heads"] = config["num_key_value_heads"] or heads
    if config["hidden_size"] % heads or heads % groups:
        raise InputError(
            f"{where}: config.json has hidden_size {config['hidden_size']}, num_attention_heads {heads} and "
            f"num_key_value_heads {groups}; each must be divisible by the next"
        )
    if config["hidden_act"] != "silu":
        raise InputError(f"{where}: config.json has hidden_act {config['hidden_act']!r}; InternLM2 has silu")
    scaling = given.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "dynamic", "linear"):
        raise InputError(f"{where}: config.json has rope_scaling of type {kind!r}; known are dynamic and linear")
    return config | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": config["hidden_size"] // heads,
        # InternLM2's one option covers wqkv and wo; its feed-forward layers never have a bias.
        "attention_bias": bool(given.get("bias", True)),
        "mlp_bias": False,
        "rope_theta": float(given.get("rope_theta", 10000.0)),
        "rope_scaling": {"rope_type": "linear", "factor": float(scaling["factor"])} if kind == "linear" else None,
        "dtype": given.get("dtype", given.get("torch_dtype", "float32")),
        "use_cache": True,
    }


def _write_weights(source: Path, target: Path, config: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    files = weight_files(source)
    placed: dict[str, str] = {}
    total = 0
    for number, file in enumerate(files, 1):
        state: dict[str, Tensor] = {}
        for name, tensor in _tensors(file):
            for llama_name, part in _converted(name, tensor, config, source):
                state[llama_name] = part.contiguous()
        shard = "model.safetensors" if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file(state, target / shard, metadata={"format": "pt"})
        placed |= dict.fromkeys(state, shard)
        total += sum(tensor.nbytes for tensor in state.values())
    _check_complete(set(placed), config, source)
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def weight_files(source: Path) -> list[Path]:
    """The files that hold the weights: safetensors, or what PyTorch saved where there are none."""
    return sorted(source.glob("*.safetensors")) or sorted(source.glob("pytorch_model*.bin"))


def _tensors(file: Path) -> Iterator[tuple[str, "Tensor"]]:
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                yield name, opened.get_tensor(name)
        return
    import torch

    yield from torch.load(file, map_location="cpu", weights_only=True, mmap=True).items()


def _converted(name: str, tensor: "Tensor", config: Mapping[str, Any], source: Path) -> Iterator[tuple[str, "Tensor"]]:
    """What a tensor of InternLM2 is in the Llama layout: nothing, itself under another name, or three tensors."""
    if name.endswith("rotary_emb.inv_freq") or (name == "output.weight" and config["tie_word_embeddings"]):
        return  # computed from the configuration; the embedding itself
    if name in _NAMES:
        yield _NAMES[name], tensor
        return
    parts = name.split(".", 3)
    if len(parts) == 4 and parts[:2] == ["model", "layers"]:
        prefix, (inner, _, kind) = ".".join(parts[:3]), parts[3].rpartition(".")
        if inner == "attention.wqkv":
            projections = zip("qkv", split_wqkv(tensor, config, source), strict=True)
            yield from ((f"{prefix}.self_attn.{letter}_proj.{kind}", part) for letter, part in projections)
            return
        if inner in _LAYER_NAMES:
            yield f"{prefix}.{_LAYER_NAMES[inner]}.{kind}", tensor
            return
    raise InputError(f"student.model: {source}: a tensor {name}, which InternLM2 does not have")


def split_wqkv(
    fused: "Tensor", config: Mapping[str, Any], source: Path | str = "wqkv"
) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Query, key and value rows of `wqkv`, weight [(H + 2 G) E, D] or bias [(H + 2 G) E].

    H query heads, G key/value heads, E head size. The rows come key/value head by key/value head: its H / G query
    heads, its key, its value.
    """
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size, shared = config["hidden_size"] // heads, heads // groups
    if fused.shape[0] != groups * (shared + 2) * size:
        raise InputError(
            f"student.model: {source}: wqkv has {fused.shape[0]} rows; {heads} heads and {groups} key/value heads of "
            f"size {size} make {groups * (shared + 2) * size}"
        )
    grouped = fused.view(groups, shared + 2, size, *fused.shape[1:])
    query, key, value = grouped[:, :shared], grouped[:, -2], grouped[:, -1]
    return query.flatten(0, 2), key.flatten(0, 1), value.flatten(0, 1)


def _check_complete(found: set[str], config: Mapping[str, Any], source: Path) -> None:
    """The names that a Llama model of this configuration has, no more and no fewer."""
    expected = {"model.embed_tokens.weight", "model.norm.weight"}
    if not config["tie_word_embeddings"]:
        expected.add("lm_head.weight")
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        expected |= {f"{prefix}.{name}.weight" for name in _LAYER_NAMES.values()}
        expected |= {f"{prefix}.self_attn.{letter}_proj.weight" for letter in "qkv"}
        if config["attention_bias"]:
            expected |= {f"{prefix}.self_attn.{letter}_proj.bias" for letter in "qkvo"}
    for names, what in ((expected - found, "lacks"), (found - expected, "has, against its config.json,")):
        if names:
            some = ", ".join(sorted(names)[:3]) + (" …" if len(names) > 3 else "")
            raise InputError(f"student.model: {source}: {what} {len(names)} tensors (in the Llama layout: {some})")
