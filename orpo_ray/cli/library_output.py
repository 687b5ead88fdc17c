"""Keeps libraries from talking into the progress: what a person needs to know, the run says itself."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

from orpo_ray.cli.failures import DEBUG


@contextmanager
def library_output(file: Path) -> Iterator[None]:
    """While the context is open, all that is printed goes to `file`, but for consoles made before.

    Ray, Serve and vLLM print warnings from threads of their own, whatever their loggers are told. With
    ORPO_RAY_DEBUG=1 they are left alone.
    """
    if os.environ.get(DEBUG):
        yield
        return
    output = _OutputFile(file)
    try:
        with redirect_stdout(output), redirect_stderr(output):
            yield
    finally:
        output.end()


class _OutputFile(io.TextIOBase):
    """A text stream that appends to a file, once its directory is there. Loggers may keep it for longer than it lives."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened: TextIO | None = None
        self._ended = False

    def write(self, text: str) -> int:
        if self._opened is None and not self._ended and self._file.parent.is_dir():
            self._opened = self._file.open("a", encoding="utf-8")
        if self._opened is not None:
            self._opened.write(text)
            self._opened.flush()
        return len(text)

    def writable(self) -> bool:
        return True

    def end(self) -> None:
        """Write nothing from now on."""
        self._ended = True
        if self._opened is not None:
            self._opened.close()
            self._opened = None
