"""Transport `nccl`: engines on any node take a version from the process that trains, while the storage gets it too.

The newest version alone is offered. An engine that comes late, or whose link breaks, loads from the storage.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from orpo_ray.weights.link import Sender
from orpo_ray.weights.published import publish_directory

_WEIGHTS_FILE = "model.safetensors"


class DirectTransport:
    """The writing side; see `weights/transport.py` for what it promises."""

    def __init__(self, host: str, limit_s: float) -> None:
        self._sender = Sender(host, limit_s)

    def __enter__(self) -> Self:
        return self

    def publish(self, final: Path, write: Callable[[Path], None], facts: dict[str, Any], size: int) -> str | None:
        publish_directory(final, write, facts)
        weights = final / _WEIGHTS_FILE
        if not weights.exists():  # an adapter: a few megabytes, and engines add it by its directory
            return None
        from safetensors.torch import load_file

        # Mapped, not read: what was just written is in this node's page cache, and stays readable once it is pruned.
        return self._sender.offer(facts["number"], load_file(weights))

    def settle(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._sender.__exit__()
