"""`orpo-ray reproduce` for real, very small: two recipes on the demo's models, stopped once, gone on with, then skipped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "orpo_ray.cli", "reproduce")
EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "base": "orpo_ray/demo/demo.yaml",
    "run": {
        "task": {"train_size": 64, "test_size": 64},
        "sampling": {"k": 3, "max_tokens": 60},
        "train": {"epochs": 1, "pairs_per_prompt": 2, "global_batch": 16, "micro_batch": 8},
        "policy": {"refresh": 2},
        "eval": {"k": 4},
        "resources": {"block_rows": 8},
    },
    "recipes": ["single_cot", "mixed_policy"],
    "seeds": [0],
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_recipes_stopped_and_gone_on_with(tmp_path: Path) -> None:
    file, runs = tmp_path / "tiny.yaml", tmp_path / "runs"
    file.write_text(yaml.safe_dump(EXPERIMENT))
    arguments = [*COMMAND, str(file), "--set", f"run.storage.path={runs}"]
    stopped = stop_once(arguments, runs / "tiny.single_cot.arithmetic.student.s0" / "run.json")
    assert stopped.returncode == 130, stopped.stdout
    assert "stopped; 0 of 2 runs are done. Go on with" in stopped.stdout
    finished = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    report = json.loads((runs / "experiments/tiny/report.json").read_text())
    assert report["runs"] == {"planned": 2, "done": 2, "failed": {}, "missing": []}
    # The teacher's traces are made once; only the one that contrasts has the student's.
    assert len(list((runs / "traces").glob("teacher-[0-9a-f]*"))) == 1
    assert len(list((runs / "traces").glob("student-*"))) == 1
    single, mixed = (row["cells"][0] for row in report["table"])
    assert (single["total"], mixed["total"]) == ([64], [64])
    tokens = {name: cost["tokens"] for name, cost in report["costs"]["recipes"].items()}
    assert tokens["single_cot"]["sampled"] == 0 < tokens["mixed_policy"]["sampled"]
    assert {"pass@1", "pass@4", "majority@4"} <= report["several_answers"][0]["measured"].keys()
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "2 runs, 2 of them finished already" in again.stdout


def stop_once(arguments: list[str], sign: Path) -> "subprocess.CompletedProcess[str]":
    """Ctrl-C once the first run works."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 600
    while not sign.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the first run never began"
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, output)
