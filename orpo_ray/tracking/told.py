"""What a worker did, one JSON object a line with run, phase and process: `logs/<process>.jsonl` below the run.

The driver's own events are in events.jsonl. A line that cannot be written ends nothing.
"""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orpo_ray.tracking.meter import RUN_VARIABLE

DIRECTORY_VARIABLE = "ORPO_RAY_RUN_DIRECTORY"


def tell(kind: str, *, phase: str, **fields: Any) -> None:
    """Write a line; where no run's directory is known, as in most tests, nothing happens.

    Args:
        kind: dotted, as `sampler.loaded`.
        fields: plain numbers or short texts: `version`, `step`, `row`, `epoch`, `prompt_id`, …
    """
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if directory is None:
        return
    process = f"{socket.gethostname()}-{os.getpid()}"
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "run": os.environ.get(RUN_VARIABLE, ""),
        "phase": phase,
        "process": process,
        "kind": kind,
        **fields,
    }
    logs = Path(directory) / "logs"
    try:
        logs.mkdir(exist_ok=True)
        with (logs / f"{process}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    except OSError:
        return
