"""TensorBoard's event files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """A `Tracker` that writes to a directory."""

    def __init__(self, directory: Path) -> None:
        # TensorBoard's own writer: that of torch would load all of torch for it.
        from tensorboard.summary import Writer

        self._writer: Any = Writer(str(directory))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
