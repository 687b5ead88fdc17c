"""`--help` and `--version` answer at once: they import nothing heavy."""

import json
import resource
import subprocess
import sys

import pytest

from orpo_ray import __version__

HEAVY = ("torch", "ray", "vllm", "transformers", "pydantic", "rich", "numpy", "pyarrow", "deepspeed")

RUN = f"""
import json, sys
sys.argv[0] = "orpo-ray"
from orpo_ray.cli import main
try:
    main()
finally:
    print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)
"""


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_nothing_heavy_is_imported(argument: str) -> None:
    ended = subprocess.run([sys.executable, "-c", RUN, argument], capture_output=True, text=True, check=True)
    assert json.loads(ended.stderr) == []
    assert ("Usage: orpo-ray" if argument == "--help" else f"orpo-ray {__version__}") in ended.stdout


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_answer_takes_less_than_half_a_second(argument: str) -> None:
    """In processor time, which other work on the machine does not lengthen; the best of three."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", RUN, argument], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5
