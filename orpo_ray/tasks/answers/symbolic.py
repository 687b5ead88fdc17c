"""Compares mathematical expressions by math-verify, in processes of its own.

math-verify bounds its time by `signal.alarm`: off the main thread, as in Ray actors, it fails, and has scored every answer 0
without a word (verl PR #5635). So each comparison runs in a child process, and one that breaks or hangs is an error.

The children are fresh interpreters at the two ends of a pipe, not `multiprocessing`'s: spawning with that imports the
caller's main module anew, which a script without a main guard does not survive.
"""

import atexit
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from enum import StrEnum
from typing import Any

from orpo_ray.errors import VerifierError

WORKERS = 2
"""Child processes at most, in each process that compares."""
LIMIT_S = 5
"""Seconds that math-verify may take to read one side, and to compare."""
START_S = 120.0
"""Seconds that a child may take to import sympy."""


class Comparison(StrEnum):
    EQUAL = "equal"
    DIFFERENT = "different"
    UNREADABLE = "unreadable"


class SymbolicPool:
    """A few children, started at the first comparison and kept; threads share them. `close` ends them."""

    def __init__(self, workers: int = WORKERS, limit_s: int = LIMIT_S, command: list[str] | None = None) -> None:
        self._limit_s = limit_s
        self._command = command or [sys.executable, "-m", "orpo_ray.tasks.answers.symbolic_worker"]
        # Places, not children: a place is filled when it is first used, and again after its child has died.
        self._places: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(workers):
            self._places.put(None)
        self._children: set[_Child] = set()
        self._lock = threading.Lock()

    def compare(self, gold: str, answer: str) -> Comparison:
        """Whether two expressions, in LaTeX or plain, have one value. Raises VerifierError where that cannot be decided."""
        child = self._places.get()
        kept: _Child | None = None
        try:
            child = child or self._start()
            # Two readings and a comparison, each within the child's own limit; past that even its alarm has failed.
            reply = child.ask(
                {"gold": gold, "answer": answer, "limit_s": self._limit_s}, timeout_s=3.0 * self._limit_s + 5
            )
            kept = child
        finally:
            if kept is None and child is not None:
                self._end(child)
            self._places.put(kept)
        if "error" in reply:
            raise VerifierError(reply["error"])
        return Comparison(reply["verdict"])

    def close(self) -> None:
        for child in list(self._children):
            self._end(child)

    def _start(self) -> "_Child":
        child = _Child(self._command)
        with self._lock:
            self._children.add(child)
        return child

    def _end(self, child: "_Child") -> None:
        with self._lock:
            self._children.discard(child)
        child.end()


class _Child:
    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )
        self._ready = False

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, str]:
        if not self._ready:
            self._receive(START_S)
            self._ready = True
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise VerifierError(f"the math-verify process is gone: {error}") from error
        return self._receive(timeout_s)

    def _receive(self, timeout_s: float) -> dict[str, str]:
        assert self._process.stdout is not None
        deadline, line = time.monotonic() + timeout_s, b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise VerifierError(f"the math-verify process gave no reply within {timeout_s:g} s")
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise VerifierError(f"the math-verify process ended with code {self._process.wait()}")
            line += piece
        reply: dict[str, str] = json.loads(line)
        return reply

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


_pools: dict[int, SymbolicPool] = {}
_pools_lock = threading.Lock()


def compare(gold: str, answer: str) -> Comparison:
    """`SymbolicPool.compare` by this process's own pool; a forked process gets a pool of its own."""
    with _pools_lock:
        pool = _pools.get(os.getpid())
        if pool is None:
            pool = _pools[os.getpid()] = SymbolicPool()
            atexit.register(pool.close)
    return pool.compare(gold, answer)
