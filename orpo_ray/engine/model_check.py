"""Sees that a model directory can be used, before anything heavy starts."""

import json
import re
import struct
from pathlib import Path
from typing import Any, Literal

from orpo_ray.engine.internlm2 import MODEL_TYPE
from orpo_ray.engine.vllm_engine import prepare_environment
from orpo_ray.errors import InputError

Role = Literal["teacher", "student"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# One of these groups of files makes a tokenizer; a slow one may bring only its vocabulary.
_TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spiece.model",),
    ("tekken.json",),
)
_WEIGHTS = {"student": ("*.safetensors",), "teacher": ("*.safetensors", "*.bin", "*.pt")}


def check_model(path: str, role: Role, *, trust_remote_code: bool = False) -> None:
    """Check a model directory: configuration, tokenizer, weights, and an architecture that vLLM has.

    A hub name (`owner/name` where no such directory lies here) is left to the hub: only what is on this disk is read.

    Args:
        role: whose model it is, for the message. A student needs safetensors weights, since it is written back so.
        trust_remote_code: the directory's own code may bring an architecture that vLLM lacks.

    Raises:
        InputError: what is missing, and where.
    """
    where = f"{role}.model: {path}"
    directory = Path(path)
    if not directory.is_dir():
        if directory.exists() or not _HUB_NAME.fullmatch(path):
            raise InputError(f"{where}: no such directory; give a model directory, or owner/name on the hub")
        return
    config = _read_config(directory, where)
    _check_tokenizer(directory, where)
    # Conversion reads what PyTorch saved too; any other student is written back from the files that it came in.
    converted = config.get("model_type") == MODEL_TYPE
    _check_weights(directory, "teacher" if converted else role, where)
    if not (trust_remote_code and "auto_map" in config):
        _check_architecture(config, where)


def _read_config(directory: Path, where: str) -> dict[str, Any]:
    file = directory / "config.json"
    if not file.is_file():
        raise InputError(f"{where}: has no config.json, so it is no model directory")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: config.json cannot be read: {error}") from None
    if not isinstance(config, dict) or not config.get("architectures"):
        raise InputError(f'{where}: config.json names no `architectures`, as ["LlamaForCausalLM"]')
    return config


def _check_tokenizer(directory: Path, where: str) -> None:
    if not any(all((directory / name).is_file() for name in names) for names in _TOKENIZERS):
        raise InputError(
            f"{where}: has no tokenizer (no tokenizer.json, tokenizer.model, or vocab.json with merges.txt); "
            "save it there with `tokenizer.save_pretrained`"
        )


def _check_weights(directory: Path, role: Role, where: str) -> None:
    patterns = _WEIGHTS[role]
    files = sorted(file for pattern in patterns for file in directory.glob(pattern))
    if not files:
        raise InputError(f"{where}: has no weights ({' or '.join(patterns)})")
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(shards - {file.name for file in files})
        if missing:
            raise InputError(f"{where}: {index.name} names {', '.join(missing)}, which are not there")
    for file in files:
        if file.suffix == ".safetensors":
            _check_whole(file, where)


def _check_whole(file: Path, where: str) -> None:
    """The header of a safetensors file says how long it must be; a broken download is shorter."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, size)))
        needed = (
            8 + length + max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        )
    except (struct.error, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"{where}: {file.name} is not a whole safetensors file; copy or download it again") from None
    if size < needed:
        raise InputError(f"{where}: {file.name} has {size} of {needed} bytes; copy or download it again")


def _check_architecture(config: dict[str, Any], where: str) -> None:
    # Importing vLLM takes seconds, so this check comes last.
    prepare_environment()
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    if not any(name in known for name in config["architectures"]):
        raise InputError(
            f"{where}: vLLM has no architecture {', '.join(config['architectures'])}; "
            "see https://docs.vllm.ai/en/latest/models/supported_models.html"
        )


def swaps_adapters(directory: str | Path) -> bool:
    """Whether vLLM's implementation of the model in `directory` takes LoRA adapters."""
    prepare_environment()
    from vllm import ModelRegistry
    from vllm.model_executor.models.interfaces import supports_lora

    names = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))["architectures"]
    models = [ModelRegistry.models[name] for name in names if name in ModelRegistry.models]
    return bool(models) and supports_lora(models[0].load_model_cls())
