"""How a version gets from the rank that publishes it to the engines that load it: one interface, one file a transport.

Rank 0 of an attempt owns the writing side, as a context. The reading side has no object: a Version says
where it lies, and `weights/loading.py` takes the nearest. Every transport puts each version on the storage as well, since
checkpoints, evaluations and EXPORT refer to it there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from orpo_ray.weights.direct import DirectTransport
from orpo_ray.weights.published import publish_directory
from orpo_ray.weights.shm import SharedMemoryTransport

Name = Literal["filesystem", "shm", "nccl"]


class Transport(Protocol):
    """The writing side. As a context it settles in the end, and leaves nothing behind but the storage."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def publish(self, final: Path, write: Callable[[Path], None], facts: dict[str, Any], size: int) -> str | None:
        """Make a version readable; once it returns, readers may be told.

        Args:
            final: its directory on the storage.
            write: fills the directory that it is given.
            facts: put into the manifest beside the files' sizes; `write` may still add to them.
            size: bytes of its weights.

        Returns:
            Where there is a copy that is nearer: a directory that only this node sees, or the address of a link
            (`weights/link.py`); None where there is none.
        """

    def settle(self) -> None:
        """Wait until all that was published is on the storage: a checkpoint refers to it there."""


class FilesystemTransport:
    """Versions are written to the storage, which every node reads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def publish(self, final: Path, write: Callable[[Path], None], facts: dict[str, Any], size: int) -> str | None:
        publish_directory(final, write, facts)
        return None

    def settle(self) -> None: ...


def transport_of(name: Name, weights: Path, host: str, limit_s: float) -> Transport:
    """The writing side of transport `name` for the run whose versions lie below `weights`.

    Args:
        host: this node's address, as other nodes reach it.
        limit_s: how long one engine may take to load a version.
    """
    if name == "shm":
        return SharedMemoryTransport(weights)
    return DirectTransport(host, limit_s) if name == "nccl" else FilesystemTransport()
