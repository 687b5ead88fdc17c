"""One side of a comparison in a process of its own: memory, a warm allocator and an engine's threads are a process's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def result_of(module: str, *words: str, **options: Any) -> dict[str, Any]:
    """What `python -m module` writes to its --json; options that are None are left out, its output goes to stderr."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "result.json"
        command = [sys.executable, "-m", module, *words, "--json", str(out)]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
        subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def cpu_seconds() -> float:
    """Processor time of this process and of all that came of it and lives, engines and Ray's own among them."""
    import psutil

    me = psutil.Process(os.getpid())
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
