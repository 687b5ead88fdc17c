"""Stands in for `orpo-ray run`: writes the files of a finished run, made up from its configuration alone.

As a program (`python made_up.py FILE`) it obeys MADE_UP in the environment: `fail:SUBSTRING` makes runs of that name fail,
`wait` makes each stay until it is interrupted, `log:FILE` appends when a run starts and ends.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from orpo_ray.config import RunConfig, load_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller.record import PhaseRecord, PhaseState, RunRecord, write_record
from orpo_ray.pairs import PairGroup, to_table
from orpo_ray.sampling.journal import Journal

QUESTIONS = 200
SKILL = {
    "zero_shot_cot": 0.2,
    "single_cot": 0.3,
    "diverse_cot": 0.4,
    "off_policy": 0.5,
    "on_policy": 0.45,
    "mixed_policy": 0.6,
    "teacher_negatives": 0.42,
}


def finish(config: RunConfig) -> RunLayout:
    """Write the run's files."""
    layout = RunLayout(Path(config.storage.path), config.name)
    layout.evaluations.mkdir(parents=True)
    epochs = config.train.epochs if config.trains else 0
    for epoch in range(epochs + 1):
        _evaluation(layout, config, epoch)
    if config.trains:
        _metrics(layout, config)
        _journal(layout, config)
    write_record(layout.state, _record(config, epochs))
    return layout


def skill(config: RunConfig, epoch: int) -> float:
    """Share of right answers that `finish` aims at."""
    start, end = SKILL["zero_shot_cot"], SKILL[config.recipe or "mixed_policy"]
    return start + (end - start) * (epoch / config.train.epochs if config.trains else 0)


def right_answers(config: RunConfig, epoch: int) -> list[str]:
    """A question is right where its difficulty is below the skill: a better student has most of a worse one's right."""
    noise = random.Random(f"{config.name}/{epoch}")
    difficulty = random.Random(f"{config.task.name}/{config.seed}")
    questions = [(f"q{place}", difficulty.random()) for place in range(QUESTIONS)]
    return [name for name, hard in questions if hard + noise.uniform(-0.05, 0.05) < skill(config, epoch)]


def _evaluation(layout: RunLayout, config: RunConfig, epoch: int) -> None:
    right = right_answers(config, epoch)
    data = {
        "epoch": epoch, "step": 4 * epoch, "version": epoch, "split": "test", "correct": len(right), "total": QUESTIONS,
        "parsed": QUESTIONS, "truncated": 0, "mean_tokens": 20.0, "seconds": 1.0, "path": "", "right": right, "samples": [],
    }  # fmt: skip
    (layout.evaluations / f"epoch-{epoch:03d}-test.json").write_text(json.dumps(data))


def _metrics(layout: RunLayout, config: RunConfig) -> None:
    live = config.live_policy.phi
    with layout.metrics.open("w") as file:
        for step in range(1, 4 * config.train.epochs + 1):
            line = {
                "step": step, "epoch": 1 + (step - 1) // 4, "loss": 2 / step, "margin": 0.1 * step, "staleness_mean": 0.0,
                "phi": live, "lambda": 1.0, "by_policy": {"live": int(8 * live), "initial": 8 - int(8 * live), "none": 0},
                "further": 10 if live else 0, "novel": 7 if live else 0, "rejected_logp": -1.0, "scored_tokens": 100,
                "computed_tokens": 150, "sampled_tokens": 40 if live else 0,
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")


def _journal(layout: RunLayout, config: RunConfig) -> None:
    batch = config.train.global_batch
    journal = Journal(layout.journal, batch)
    negatives = [[5, 6, 7, 8], [5, 6, 9, 9]] if config.negatives_source != "none" else []
    for step in range(4 * config.train.epochs):
        groups = [
            PairGroup(
                step * batch + row, 1 + step // 4, f"p{row}", "initial", "initial", 0, True, [1], [[5, 6, 7, 7]], negatives,
                [-1.0] * len(negatives), [0] * max(1, len(negatives)), list(range(len(negatives))) or [-1],
            )
            for row in range(batch)
        ]  # fmt: skip
        journal.append(step * batch, to_table(groups), 0)


def _record(config: RunConfig, epochs: int) -> RunRecord:
    results = {
        "PREPARE": {"cores": 2, "resources": {"DISTILL": {"CPU": 5.0, "GPU": 1.0}}},
        "TEACH": {"test": {"correct": 180, "total": 200}} if config.trains else {"skipped": "nothing to do"},
        "SEED": {"negatives": 3} if config.trains else {"skipped": "nothing to do"},
        "DISTILL": {"steps": 4 * epochs} if config.trains else {"skipped": "nothing to do"},
        "EVALUATE": {"evaluations": []},
        "EXPORT": {"epoch": epochs} if config.trains else {"skipped": "nothing to do"},
    }
    phases = {
        name: PhaseRecord(PhaseState.DONE, "key", "2025-01-01T00:00:00Z", seconds=36.0, result=result)
        for name, result in results.items()
    }
    options = config.model_dump(mode="json", by_alias=True)
    return RunRecord(config.name, "0", "", PhaseState.DONE, "", "", options, phases=phases)


def _note(what: str, config: RunConfig) -> None:
    for order in os.environ.get("MADE_UP", "").split(";"):
        if order.startswith("log:"):
            with open(order.removeprefix("log:"), "a") as file:
                file.write(f"{what} {config.name}\n")


def main() -> None:
    config = load_config(sys.argv[1])

    def stop(number: int, frame: FrameType | None) -> None:
        _note("stopped", config)
        sys.exit(130)

    signal.signal(signal.SIGINT, stop)
    _note("start", config)
    orders = os.environ.get("MADE_UP", "").split(";")
    if any(order.startswith("fail:") and order.removeprefix("fail:") in config.name for order in orders):
        print("orpo-ray: the teacher never answers right")
        sys.exit(2)
    while "wait" in orders:
        time.sleep(0.02)
    finish(config)
    _note("end", config)


if __name__ == "__main__":
    main()
