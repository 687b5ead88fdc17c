"""The demo's configuration, which comes with the package."""

import json
from collections.abc import Sequence
from pathlib import Path

import orpo_ray
from orpo_ray.config import RunConfig, load_config

_PACKAGE = Path(orpo_ray.__file__).parent
DEMO = _PACKAGE / "demo" / "demo.yaml"


def demo_config(overrides: Sequence[str] = ()) -> RunConfig:
    """The demo's configuration, with the packaged models where they are installed.

    Its model paths are written as they are seen from a checkout, `orpo_ray/demo/…`, so that the file can be read, copied
    and run there like any other.
    """
    written = load_config(DEMO)
    models = {"student.model": written.student.model, "teacher.model": written.teacher.model}
    # Quoted, since a path may hold what YAML takes for something else. What the user sets comes last.
    installed = [f"{option}={json.dumps(str(_PACKAGE.parent / path))}" for option, path in models.items() if path]
    return load_config(DEMO, [*installed, *overrides])
