"""From the worker group's partitioned weights to a directory that vLLM and transformers load.

A student with adapters (train.lora) becomes one of two kinds of directories:

    v000003-a001/adapter_config.json, adapter_model.safetensors     the adapter alone, as peft saves it
    v000003-a001/config.json, model.safetensors, …, adapter/…       a whole model with the adapter merged in, and it beside
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orpo_ray.training import lora
from orpo_ray.training.batching import NO_REJECTED, TokenGroup
from orpo_ray.training.model import OrpoModel, causal_lm, load_student
from orpo_ray.training.stats import NAMES
from orpo_ray.weights.probe import Probe

WEIGHTS_FILE = "model.safetensors"
ADAPTER_BESIDE = "adapter"
"""Directory of the adapter beside a whole model that it is merged into."""
PROBE_TOKENS = 16
"""Enough for their mean to be steady. Trainer and engine each compute twice as many in every weight sync, one after the other."""
# Files of the initial student that describe weights; all others (configuration, tokenizer, licence) are carried over.
_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")
_TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*", "spiece.model"
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A student on rank 0's CPU, ready to be written; empty on the other ranks.

    Attributes:
        weights: of the whole model, under transformers' names; empty where only the adapter is published.
        adapter: of the adapters, under the names that they have in `student`; empty where there are none.
    """

    student: nn.Module
    weights: dict[str, Tensor]
    adapter: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.weights.values(), *self.adapter.values()))

    def write(self, directory: Path, template: Path) -> None:
        """Fill `directory`; files that are not weights are those of `template`."""
        if not self.weights:
            lora.write_adapter(directory, self.student, self.adapter)
            return
        write_model(directory, self.weights, template)
        if self.adapter:
            (directory / ADAPTER_BESIDE).mkdir()
            lora.write_adapter(directory / ADAPTER_BESIDE, self.student, self.adapter)


def gather_student(
    student: nn.Module, *, partitioned: bool, rank: int, precision: str, adapter_only: bool = False
) -> Published:
    """What is published of the student; every rank calls it.

    Args:
        partitioned: ZeRO stage 3, where each rank holds a share of each parameter.
        precision: `fp32` or `bf16`.
        adapter_only: the student has adapters, and nothing else is published.
    """
    weights = {} if adapter_only else gather_weights(student, partitioned=partitioned, rank=rank)
    adapter = gather_adapter(student, partitioned=partitioned, rank=rank)
    return Published(student, in_precision(weights, precision), in_precision(adapter, precision))


def gather_weights(student: nn.Module, *, partitioned: bool, rank: int) -> dict[str, Tensor]:
    """The whole student's weights on rank 0's CPU, under transformers' own names; every rank calls it.

    One layer's parameter is gathered at a time, so no rank ever holds more than the largest beside its share. An
    adapter is merged into it.

    Args:
        partitioned: ZeRO stage 3, where each rank holds a share of each parameter.

    Returns:
        The state on rank 0 (tied weights once), an empty mapping elsewhere. Where parameters are whole and on the CPU, these are
        they themselves.
    """
    causal = causal_lm(student)
    layers = dict(lora.lora_layers(causal)) if causal is not student else {}
    state: dict[str, Tensor] = {}
    seen = {id(factor) for layer in layers.values() for factor in lora.factors(layer)}
    for name, parameter in _tensors(causal):
        if id(parameter) in seen:  # tied to one before it, as an output layer to the embedding
            continue
        seen.add(id(parameter))
        module, _, kind = name.replace(".base_layer.", ".").rpartition(".")
        layer = layers.get(module) if kind == "weight" else None
        with _whole([parameter, *(lora.factors(layer) if layer is not None else [])], partitioned):
            if rank == 0:
                whole = parameter.detach()
                if layer is not None:
                    whole = lora.merged(layer, whole)
                # What is gathered of shares is gone behind this block; the rest nobody changes before it is written.
                state[f"{module}.{kind}"] = whole.to("cpu", copy=partitioned).contiguous()
    return state


def gather_adapter(student: nn.Module, *, partitioned: bool, rank: int) -> dict[str, Tensor]:
    """The adapters' parameters on rank 0's CPU, under their names in `student`; every rank calls it."""
    state: dict[str, Tensor] = {}
    if causal_lm(student) is student:
        return state
    own = {id(factor) for _, layer in lora.lora_layers(student) for factor in lora.factors(layer)}
    for name, parameter in student.named_parameters():
        if id(parameter) in own:
            with _whole([parameter], partitioned):
                if rank == 0:
                    state[name] = parameter.detach().to("cpu", copy=partitioned).contiguous()
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


def write_probed(
    published: Published, directory: Path, template: Path, probe: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Fill `directory` while the probe is computed: the disk takes the weights, the device does the forward pass.

    Returns:
        What `probe` returns.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="publish") as writer:
        writing = writer.submit(published.write, directory, template)
        found = probe()
        writing.result()
    return found


def merge_adapter(base: Path, adapter: Path, target: Path) -> None:
    """Fill `target` with the whole model in `base` with an adapter merged in, in the adapter's precision.

    It takes four bytes a parameter of memory.
    """
    import peft
    from safetensors import safe_open

    with safe_open(adapter / lora.WEIGHTS_FILE, framework="pt") as opened:
        dtype = opened.get_tensor(next(iter(opened.keys()))).dtype
    student = peft.PeftModel.from_pretrained(load_student(base), str(adapter), adapter_name=lora.ADAPTER)
    weights = gather_weights(student, partitioned=False, rank=0)
    write_model(target, in_precision(weights, "fp32" if dtype == torch.float32 else "bf16"), base)


def tokenizer_files(directory: Path) -> list[Path]:
    """The files of a model directory that its tokenizer, or its chat template, is read from."""
    return [file for pattern in _TOKENIZER_FILES for file in sorted(directory.glob(pattern))]


def _tensors(causal: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from causal.named_parameters(remove_duplicate=False)
    persistent = causal.state_dict(keep_vars=True).keys()
    for name, buffer in causal.named_buffers():
        if name in persistent:
            yield name, buffer


def _whole(parameters: Sequence[Tensor], partitioned: bool) -> AbstractContextManager[Any]:
    shared = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned or not shared:
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(shared, modifier_rank=None)
    return context


def probe_fact(engine: Any, prompt: Sequence[int], trace: Sequence[int], dtype: str) -> dict[str, Any]:
    """How probable the student as it is finds a trace: for its manifest, to check engines by; every rank calls it.

    Of the prompt the last PROBE_TOKENS are taken, of the trace the first.

    Args:
        engine: the DeepSpeed engine; where parameters are partitioned, its forward pass gathers them.
        dtype: precision that the weights are published in.
    """
    model: OrpoModel = engine.module
    prompt, trace = prompt[-PROBE_TOKENS:], trace[:PROBE_TOKENS]
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
