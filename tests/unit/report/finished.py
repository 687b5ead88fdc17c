"""The files of a finished run, as its phases leave them."""

import json
from pathlib import Path
from typing import Any

from orpo_ray.config.layout import RunLayout

EVALUATIONS: list[dict[str, Any]] = [
    {
        "epoch": epoch,
        "step": 19 * epoch,
        "version": epoch,
        "split": "test",
        "correct": correct,
        "total": 500,
        "parsed": 490,
        "truncated": 4,
        "mean_tokens": 41.3,
        "seconds": 3.2,
        "path": f"weights/v{epoch:06d}-a001",
    }
    for epoch, correct in ((0, 142), (1, 190), (2, 237))
]

RESULTS: dict[str, dict[str, Any]] = {
    "PREPARE": {
        "rows": {
            "train": {"prompts": 600, "fingerprint": "aaaabbbbccccdddd"},
            "test": {"prompts": 500, "fingerprint": "1111222233334444"},
        },
        "student": {"fingerprint": "5555666677778888", "parameters": 363_000},
        "resources": {},
    },
    "TEACH": {
        "key": "0123456789abcdef",
        "path": "runs/traces/teacher-0123456789abcdef",
        "prompts": 600,
        "traces": 4800,
        "right": 4320,
        "wrong": 400,
        "unparsed": 80,
        "truncated": 10,
        "kept": 2013,
        "near_duplicates": 2307,
        "prompts_without_kept": 3,
        "accuracy": 0.9,
        "test": {"correct": 463, "total": 500},
    },
    "SEED": {
        "path": "runs/traces/student-fedcba9876543210",
        "prompts": 597,
        "traces": 4776,
        "right": 1400,
        "wrong": 3300,
        "unparsed": 60,
        "truncated": 16,
        "negatives": 2900,
        "near_duplicates": 444,
        "never_wrong": 2,
    },
    "DISTILL": {
        "steps": 38,
        "epochs": 2,
        "rows": 1194,
        "pairs": 4700,
        "sft_rows": 4,
        "by_policy": {"live": 600, "initial": 590, "none": 4},
        "staleness": {"0": 450, "1": 150},
        "versions": 2,
        "attempts": 1,
        "pairs_per_s": 41.5,
        "loss_first": 2.3125,
        "loss_last": 0.875,
        "weights": "runs/toy/weights/v000002-a001",
    },
    "EVALUATE": {"evaluations": EVALUATIONS},
    "EXPORT": {"path": "runs/toy/export", "epoch": 2, "select": "last"},
}
SECONDS = {"PREPARE": 4.0, "TEACH": 70.5, "SEED": 42.0, "DISTILL": 151.0, "EVALUATE": 6.0, "EXPORT": 0.5}
QUESTION = "Tom has 5 apples. He gets 3 more and gives 2 away. How many has he?"


def write_evaluations(directory: Path) -> None:
    """The files that the evaluator writes."""
    directory.mkdir(parents=True, exist_ok=True)
    sample = {
        "prompt_id": "7",
        "prompt": QUESTION,
        "text": "5 + 3 = 8, 8 - 2 = 6. #### 6",
        "gold": "6",
        "verdict": "right",
    }
    for evaluation in EVALUATIONS:
        file = directory / f"epoch-{evaluation['epoch']:03d}-test.json"
        file.write_text(json.dumps(evaluation | {"samples": [sample]}))


def write_finished_run(storage: Path, name: str = "toy") -> RunLayout:
    """A run that is done."""
    layout = RunLayout(storage, name)
    layout.run.mkdir(parents=True)
    phases = {
        phase: {
            "state": "done",
            "fingerprint": "k",
            "started": "2023-11-14T22:13:20.000Z",
            "finished": "2023-11-14T22:14:20.000Z",
            "seconds": SECONDS[phase],
            "result": result,
            "error": None,
        }
        for phase, result in RESULTS.items()
    }
    write_state(layout, state="done", phases=phases)
    write_evaluations(layout.evaluations)
    return layout


def write_state(layout: RunLayout, **changes: Any) -> None:
    """run.json, with `changes` over what is there, or over that of a run that has just begun."""
    record: dict[str, Any] = {
        "name": layout.name,
        "orpo_ray": "0.1.0",
        "command": "orpo-ray run toy.yaml",
        "state": "running",
        "started": "2023-11-14T22:13:20.000Z",
        "finished": None,
        "config": {},
        "error": None,
        "beginning": None,
        "phases": {},
    }
    if layout.state.exists():
        record = json.loads(layout.state.read_text())
    layout.state.write_text(json.dumps(record | changes))
