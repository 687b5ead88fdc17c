"""An engine's processes end once the process that started it has ended, however that ended.

vLLM's EngineCore looks after its workers and they after it, but nobody looks after EngineCore: where a sampler is killed outright,
as by `ray stop` or for memory, its engine goes on waiting for requests, and keeps its memory.
"""

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from typing import Any

EXTENSION = "orpo_ray.engine.owner.EndsWithOwner"
"""For the `worker_extension_cls` of an engine that needs nothing else of its workers."""


class EndsWithOwner:
    """Mixed into vLLM's worker, the process of an engine that runs code of ours."""

    # Of a class that is mixed in, vLLM calls no __init__; Python calls its __new__ as soon as the worker is made.
    def __new__(cls, *_: Any, **options: Any) -> "EndsWithOwner":
        engine = _engine_process(options["vllm_config"].parallel_config.distributed_executor_backend)
        if engine is not None:
            end_with_owner(engine)
        return super().__new__(cls)


def end_with_owner(engine: int) -> None:
    """Kill process `engine` and this one once the parent of `engine` has ended; a thread waits for that."""
    import psutil

    process = psutil.Process(engine)
    owner = process.parent()

    def wait() -> None:
        if owner is not None:
            owner.wait()  # sleeps: Linux tells it
        if engine != os.getpid():
            # A worker that loses its EngineCore ends by itself; one in the middle of a long call does so late.
            with suppress(psutil.NoSuchProcess):
                process.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="owner", daemon=True).start()


def _engine_process(executor: str) -> int | None:
    """EngineCore's process, seen from a worker; None where the worker is an actor of Ray's, which ends it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return None
    return {"uni": os.getpid(), "mp": parent.pid}.get(executor)
