"""Transport `shm`: readers on the publishing node load a version from its memory, while the storage gets its copy.

    /dev/shm/orpo_ray-1f0c…-9d41…/v000003-a001

The directory's name holds the run's and a random part, so that no reader ever takes a version of another life of the run
for its own. The newest version lies there, for a moment the two newest: an engine that comes late loads from the storage,
as one on another node does.
"""

import hashlib
import shutil
import socket
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from orpo_ray.errors import InputError
from orpo_ray.weights.published import MANIFEST, publish_directory

SHM = Path("/dev/shm")
_MIB = 1 << 20


class SharedMemoryTransport:
    """The writing side; see `weights/transport.py` for what it promises."""

    def __init__(self, weights: Path, shm: Path = SHM) -> None:
        sweep(weights, shm)
        self._shm = shm
        self._directory = shm / f"{_prefix(weights)}{uuid.uuid4().hex[:12]}"
        self._newest: Path | None = None
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="weights-to-storage")
        self._copying: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def publish(self, final: Path, write: Callable[[Path], None], facts: dict[str, Any], size: int) -> str | None:
        self.settle()
        self._check_room(size)
        copy = self._directory / final.name
        publish_directory(copy, write, facts)
        self._copying = self._copier.submit(_copy, copy, final, facts)
        former, self._newest = self._newest, copy
        if former is not None:
            shutil.rmtree(former, ignore_errors=True)
        return str(copy)

    def settle(self) -> None:
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.result()

    def __exit__(self, *_: object) -> None:
        try:
            self.settle()
        finally:
            self._copier.shutdown()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _check_room(self, size: int) -> None:
        free = shutil.disk_usage(self._shm).free
        if size > free:
            raise InputError(
                f"storage.transport: shm puts a version of {size / _MIB:.0f} MiB into {self._shm} of node "
                f"{socket.gethostname()}, where {free / _MIB:.0f} MiB are free; give its container more shared memory "
                "(docker run --shm-size=…, on Kubernetes an emptyDir with medium: Memory), or take `filesystem`"
            )


def sweep(weights: Path, shm: Path = SHM) -> None:
    """Remove what former lives of a run left in this node's memory. One process at a time works on a run."""
    for directory in shm.glob(f"{_prefix(weights)}*"):
        shutil.rmtree(directory, ignore_errors=True)


def _prefix(weights: Path) -> str:
    return f"orpo_ray-{hashlib.sha256(str(weights.resolve()).encode()).hexdigest()[:12]}-"


def _copy(copy: Path, final: Path, facts: dict[str, Any]) -> None:
    def write(directory: Path) -> None:
        shutil.copytree(copy, directory, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)

    publish_directory(final, write, facts)
