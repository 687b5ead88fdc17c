"""The smallest configuration, and changes to it."""

import copy
from typing import Any

MINIMAL: dict[str, Any] = {
    "task": {"name": "arithmetic"},
    "teacher": {"model": "models/teacher"},
    "student": {"model": "models/student"},
}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """MINIMAL with `section.option` set to other values."""
    data = copy.deepcopy(MINIMAL)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return data
