"""From the worker group's partitioned weights to a model directory that vLLM and transformers load."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orpo_ray.training.batching import NO_REJECTED, TokenGroup
from orpo_ray.training.model import OrpoModel, causal_lm
from orpo_ray.training.stats import NAMES
from orpo_ray.weights.probe import Probe

WEIGHTS_FILE = "model.safetensors"
# Files of the initial student that describe weights; all others (configuration, tokenizer, licence) are carried over.
_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")


def gather_weights(student: nn.Module, *, partitioned: bool, rank: int) -> dict[str, Tensor]:
    """The whole student's weights on rank 0's CPU, under transformers' own names; every rank calls it.

    One parameter is gathered at a time, so no rank ever holds more than the largest beside its share.

    Args:
        partitioned: ZeRO stage 3, where each rank holds a share of each parameter.

    Returns:
        The state on rank 0 (tied weights once), an empty mapping elsewhere.
    """
    causal = causal_lm(student)
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, parameter in _tensors(causal):
        if id(parameter) in seen:  # tied to one before it, as an output layer to the embedding
            continue
        seen.add(id(parameter))
        with _whole(parameter, partitioned):
            if rank == 0:
                state[name] = parameter.detach().to("cpu", copy=True).contiguous()
    return state


def write_model(directory: Path, state: dict[str, Tensor], template: Path) -> None:
    """Fill `directory` with safetensors weights and everything of `template` that is not weights."""
    from safetensors.torch import save_file

    weights = {file for pattern in _WEIGHT_FILES for file in template.glob(pattern)}
    for file in template.iterdir():
        if file.is_file() and file not in weights and not file.name.startswith("orpo_ray_"):
            shutil.copy(file, directory / file.name)
    config = json.loads((template / "config.json").read_text())
    # Readers take the precision from here; the initial student's may have been another.
    config.pop("torch_dtype", None)
    config["dtype"] = str(next(iter(state.values())).dtype).removeprefix("torch.")
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(state, directory / WEIGHTS_FILE, metadata={"format": "pt"})


def _tensors(causal: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from causal.named_parameters(remove_duplicate=False)
    persistent = causal.state_dict(keep_vars=True).keys()
    for name, buffer in causal.named_buffers():
        if name in persistent:
            yield name, buffer


def _whole(parameter: Tensor, partitioned: bool) -> AbstractContextManager[Any]:
    if not partitioned or not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([parameter], modifier_rank=None)
    return context


def probe_fact(engine: Any, prompt: Sequence[int], trace: Sequence[int], dtype: str) -> dict[str, Any]:
    """How probable the student as it is finds a trace: for its manifest, to check engines by; every rank calls it.

    Args:
        engine: the DeepSpeed engine; where parameters are partitioned, its forward pass gathers them.
        dtype: precision that the weights are published in.
    """
    model: OrpoModel = engine.module
    batch = model.batch([TokenGroup(tuple(prompt), (tuple(trace),), (), ((0, NO_REJECTED),))], 1)
    engine.eval()
    try:
        with torch.no_grad():
            _, sums, _ = engine(batch.to(engine.device))
    finally:
        engine.train()
    logp = float(sums[NAMES.index("chosen_logp")])
    return Probe(list(prompt), list(trace), logp, dtype).fact()


def in_precision(state: dict[str, Tensor], precision: str) -> dict[str, Tensor]:
    """The state in the precision that is published: bf16 training publishes bf16."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
