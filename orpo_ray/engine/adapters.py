"""Students as LoRA adapters in vLLM."""

from pathlib import Path

ADAPTER_CONFIG = "adapter_config.json"
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def is_adapter(directory: str | Path) -> bool:
    """Whether a directory holds an adapter, as peft saves it, rather than a whole model."""
    return (Path(directory) / ADAPTER_CONFIG).is_file()


def room_for(rank: int) -> int:
    """The smallest `max_lora_rank` of vLLM's that takes an adapter of this rank (1 to 512)."""
    return next(room for room in _RANKS if room >= rank)
