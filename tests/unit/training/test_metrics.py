"""What a step's rows were, counted, and read back by epoch."""

import json
from dataclasses import replace
from pathlib import Path

from orpo_ray.config import Geometry
from orpo_ray.pairs import Diversity, PairGroup
from orpo_ray.training.metrics import StepCounts, live_diversity
from orpo_ray.weights import StalenessGate

GATE = StalenessGate(Geometry(4, 2, 2, prompts=8, epochs=2, refresh_steps=None), max_staleness=1)
LIVE = PairGroup(0, 1, "a", "live", "live", 0, True, [1], [[2]], [[3]], [-1.0], [0], [0], 4, 40, 3, 2)


def test_the_rows_of_a_global_batch_are_counted() -> None:
    fallback = replace(LIVE, policy="initial", wrong=0, distinct=0, sampled_tokens=30)
    padding = replace(LIVE, real=False)
    teacher = replace(LIVE, policy="teacher", sampled=0, sampled_tokens=0, wrong=0, distinct=0)
    assert StepCounts.of([LIVE, fallback, teacher, padding], GATE) == StepCounts(
        rows=3, by_policy=(1, 1, 1, 0), staleness=(1, 0), diversity=Diversity(2, 1), sampled_tokens=70
    )


def test_diversity_by_epoch_comes_from_committed_lines(tmp_path: Path) -> None:
    lines = [(1, 4, 3), (1, 6, 3), (2, 5, 1), (3, 9, 9)]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"epoch": e, "further": f, "novel": n}) + "\n" for e, f, n in lines))
    assert live_diversity(file, 2) == [Diversity(10, 6), Diversity(5, 1)]
    assert live_diversity(tmp_path / "not there", 0) == []
