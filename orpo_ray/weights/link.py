"""Tensors from one process to others, over process groups of two: NCCL between GPUs, gloo between CPUs.

    Sender                               its TCP store                               receive()
    offers version 3                                    add("asked") → n
                                         asked/n = 3    ◄──
    answer/n = names, types, shapes      ──►
    ───────────── a process group of the two, n: tensor after tensor, in that order ──────────────►

Each receiver has a group of its own: none waits for another, and one that dies takes none with it. Whoever reaches the
store may ask: it belongs within a network that is trusted, as the rendezvous of the train workers does.
"""

import json
import logging
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urlsplit

import torch
from torch import Tensor
from torch import distributed as dist

from orpo_ray.errors import OrpoRayError

log = logging.getLogger(__name__)

_GONE = b"gone"
_LOOK = timedelta(milliseconds=500)
_ANSWER_S = 20.0
_AT_A_TIME = 8


class LinkError(OrpoRayError):
    """A version did not come over a link; the storage has it too."""


def is_link(address: str) -> bool:
    """Whether a version's copy is asked for over a link, and is no directory."""
    return address.startswith(("nccl://", "gloo://"))


class Sender:
    """The sending side, in the process that has the newest tensors; a context that ends its threads."""

    def __init__(self, host: str, limit_s: float) -> None:
        """
        Args:
            host: this node's address, as receivers reach it.
            limit_s: how long one receiver may take.
        """
        self._backend = "nccl" if torch.cuda.is_available() else "gloo"
        self._limit = timedelta(seconds=limit_s)
        # Of this sender alone: another life's may listen on the same port later.
        self._life = uuid.uuid4().hex[:12]
        self._host = host
        self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=self._limit)  # type: ignore[attr-defined]
        self._offer: tuple[int, Mapping[str, Tensor]] | None = None
        self._ended = threading.Event()
        self._threads = ThreadPoolExecutor(_AT_A_TIME + 1, thread_name_prefix="weights-link")
        self._threads.submit(self._listen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Take back what was offered; what is on its way is not waited for."""
        self._offer = None
        self._ended.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def offer(self, number: int, tensors: Mapping[str, Tensor]) -> str:
        """Have version `number` ready in place of the one before; the address to ask at.

        Args:
            tensors: any device, none empty; they must not change while they are offered.
        """
        self._offer = number, tensors
        return f"{self._backend}://{self._host}:{self._store.port}/{self._life}/{number}"

    def _listen(self) -> None:
        # A client object does one thing at a time, so each thread has its own.
        store = _client(self._host, self._store.port, self._life, self._limit)
        asked = 1
        while not self._ended.is_set():
            try:
                store.wait([f"asked/{asked}"], _LOOK)
            except dist.DistStoreError:
                continue
            self._threads.submit(self._answer, asked)
            asked += 1

    def _answer(self, asked: int) -> None:
        try:
            store = _client(self._host, self._store.port, self._life, self._limit)
            number, offer = int(store.get(f"asked/{asked}")), self._offer
            if offer is None or offer[0] != number:
                store.set(f"answer/{asked}", _GONE)
                return
            tensors = offer[1]
            shapes = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()]
            store.set(f"answer/{asked}", json.dumps(shapes))
            group = _group(self._backend, store, asked, 0, self._limit)
            device = _device(self._backend)
            for tensor in tensors.values():
                group.send([tensor.to(device).contiguous()], 1, 0).wait()
        except Exception as error:
            # The receiver says it too, and takes the version from the storage.
            log.warning("a version was not sent to receiver %d: %s", asked, error)


def receive(address: str, device: torch.device, limit_s: float) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a version, one after another under their names, on `device`.

    Raises:
        LinkError: the version is no longer offered there, or its sender does not answer or stopped in the middle; what
            was yielded until then is of no use.
    """
    parts = urlsplit(address)
    _, life, number = parts.path.split("/")
    if parts.scheme == "nccl" and device.type != "cuda":
        raise LinkError(f"{address} sends from GPU to GPU, and this engine is on {device}")
    try:
        store = _client(parts.hostname or "", parts.port or 0, life, timedelta(seconds=min(limit_s, _ANSWER_S)))
        asked = store.add("asked", 1)
        store.set(f"asked/{asked}", number)
        answer = store.get(f"answer/{asked}")
        if answer == _GONE:
            raise LinkError(f"version {number} is no longer offered at {address}")
        group = _group(parts.scheme, store, asked, 1, timedelta(seconds=limit_s))
        for name, dtype, shape in json.loads(answer):
            tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
            group.recv([tensor], 0, 0).wait()
            yield name, tensor
    except (RuntimeError, ValueError) as error:  # what torch.distributed raises where the other end is gone
        raise LinkError(f"version {number} did not come from {address}: {str(error).splitlines()[0]}") from error


def _client(host: str, port: int, life: str, limit: timedelta) -> Any:
    store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=limit)  # type: ignore[attr-defined]
    return dist.PrefixStore(life, store)  # type: ignore[attr-defined]


def _group(backend: str, store: Any, asked: int, rank: int, limit: timedelta) -> Any:
    """A process group of sender (rank 0) and receiver that torch's global state does not know."""
    own = dist.PrefixStore(f"group/{asked}", store)  # type: ignore[attr-defined]
    own.set_timeout(limit)
    if backend == "gloo":
        return dist.ProcessGroupGloo(own, rank, 2, limit)
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = limit
    return dist.ProcessGroupNCCL(own, rank, 2, options)


def _device(backend: str) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
