"""Low-rank adapters (peft) round the student's linear layers: put on, looked at beforehand, and written out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from orpo_ray.config.training import LoraConfig
from orpo_ray.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"
"""What peft calls the one adapter of a student."""
WEIGHTS_FILE = "adapter_model.safetensors"


def adapt(student: "PreTrainedModel", lora: LoraConfig) -> Any:
    """A peft model around `student`, whose adapters alone are trainable. It computes what the student does at first.

    Raises:
        InputError: `target_modules` names what the student does not have, or no place for an adapter.
    """
    import peft
    from transformers.pytorch_utils import Conv1D

    _check_targets(student, lora)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        # GPT-2 keeps its weights transposed; peft would find out, and warn.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in student.modules()),
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(student, config)


def count_trainable(directory: str | Path, lora: LoraConfig) -> int:
    """Parameters of the adapters of the student in `directory`, whose weights are not read.

    Raises:
        InputError: as `adapt`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(str(directory))
        student = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        adapted = adapt(student, lora)
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def lora_layers(causal: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and module of each layer that has an adapter."""
    from peft.tuners.lora import LoraLayer

    for name, module in causal.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def factors(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """A [rank, in] and B [out, rank] of a layer's adapter."""
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def merged(layer: Any, weight: Tensor) -> Tensor:
    """The layer's weight with its adapter added, in float32: W + alpha / rank · B A, transposed as W is."""
    down, up = (factor.detach().float() for factor in factors(layer))
    delta: Tensor = layer.scaling[ADAPTER] * (up @ down)
    return weight.float() + (delta.T if layer.fan_in_fan_out else delta)


def write_adapter(directory: Path, student: Any, state: Mapping[str, Tensor]) -> None:
    """Fill `directory` as `save_pretrained` of peft would.

    Args:
        student: the peft model; only its configuration is read.
        state: the adapters' parameters, whole, under the names that they have in it.
    """
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    named = get_peft_model_state_dict(
        student, state_dict=dict(state), adapter_name=ADAPTER, save_embedding_layers=False
    )
    save_file({name: tensor.contiguous() for name, tensor in named.items()}, directory / WEIGHTS_FILE)
    config = student.peft_config[ADAPTER]
    training, config.inference_mode = config.inference_mode, True
    try:
        config.save_pretrained(str(directory))
    finally:
        config.inference_mode = training


def _check_targets(student: "PreTrainedModel", lora: LoraConfig) -> None:
    """peft takes a list of which some name nothing; adapters of embeddings and output layer have no place in vLLM."""
    if lora.target_modules == "all-linear":
        return
    from transformers.pytorch_utils import Conv1D

    head = student.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = {
        name
        for name, module in student.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    for target in lora.target_modules:
        if not any(name == target or name.endswith("." + target) for name in linear):
            ends = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise InputError(
                f"train.lora.target_modules: {target} ends the name of no linear layer of the student "
                f"({student.config.model_type}) but its output layer; there are {ends}"
            )
