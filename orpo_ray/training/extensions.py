"""DeepSpeed's CPU communication operator, built once for an environment, by one process of a machine at a time.

PyTorch compiles it on first use, in a directory shared by every environment of the user, under a lock *file*: two
environments overwrite each other's, and a compiler that was killed leaves the file, on which every later start waits
for ever. Here each environment has a directory of its own, and whoever builds holds an `flock`, which the kernel
releases with its process; a lock file found under it can only be a leftover.
"""

import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orpo_ray.errors import WaitTimeout

_POLL_S = 0.1


def extensions_directory() -> Path:
    """Where this environment's extensions are built: TORCH_EXTENSIONS_DIR where it is set, and set from here on."""
    import torch
    from torch.utils.cpp_extension import get_default_build_root

    if "TORCH_EXTENSIONS_DIR" not in os.environ:
        environment = hashlib.sha256(f"{sys.prefix}\n{torch.__version__}".encode()).hexdigest()[:12]
        os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(get_default_build_root()) / f"orpo_ray-{environment}")
    return Path(os.environ["TORCH_EXTENSIONS_DIR"])


def build_comm_operator(limit_s: float) -> None:
    """Build the operator that `deepspeed.initialize` loads on a CPU, or load it where it is built; every rank calls it.

    Args:
        limit_s: how long another process may take to build it.

    Raises:
        WaitTimeout: it took longer.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    builder: Any = get_accelerator().create_op_builder("ShareMemCommBuilder")
    # The test that DeepSpeed itself makes before it loads the operator; without it, it goes over gloo.
    if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return
    directory = extensions_directory()
    with sole_builder(directory, builder.NAME, limit_s):
        (directory / builder.NAME / "lock").unlink(missing_ok=True)
        builder.load()


@contextmanager
def sole_builder(directory: Path, name: str, limit_s: float) -> Iterator[None]:
    """Hold the right to build the extension `name` in `directory`; it ends with this process, however it ends.

    Raises:
        WaitTimeout: another process held it for more than `limit_s` seconds.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.flock"
    until = time.monotonic() + limit_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise WaitTimeout(
                        f"another process has been building {name} for over {limit_s:g} s (limits.start_s), and holds "
                        f"{path}; end it, or give this run a directory of its own by TORCH_EXTENSIONS_DIR"
                    ) from None
                time.sleep(_POLL_S)
        yield
