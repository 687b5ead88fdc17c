"""The statistics of a step: combined over micro-batches and ranks, and written down as JSON."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from orpo_ray.config.layout import RunLayout
from orpo_ray.training import stats
from orpo_ray.training.batching import TokenGroup, Truncation
from orpo_ray.training.deepspeed_engine import StepResult
from orpo_ray.training.metrics import MetricsWriter, StepCounts
from orpo_ray.training.objective import Orpo, PairScores, Sft
from orpo_ray.training.packing import packed
from orpo_ray.training.sharing import share_batch

GROUPS = [
    TokenGroup((1, 2), ((3,), (4, 5)), ((6, 7),), ((0, 0), (1, 0)), name="a", rejected_logp=(-0.7,)),
    TokenGroup((1, 2), ((3,),), (), ((0, -1),), name="b"),
]


def sums(chosen: list[float], rejected: list[float], objective: Any = None) -> dict[str, float]:
    """Of two pairs of a group with rejected traces, and one without."""
    batch = packed(GROUPS, real_rows=2)
    given = [torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in (chosen, rejected)]
    scores = PairScores(given[0], given[1], -given[0], batch.has_rejected_K, batch.weight_K)
    result = (objective or Orpo(lam=1.0))(scores)
    return dict(zip(stats.NAMES, stats.batch_sums(batch, scores, result).tolist(), strict=True))


def test_the_rejected_gradient_is_the_largest_of_a_pair() -> None:
    """The method's reference values: c = -0.5, r = -0.8 has |d/dr| = 0.6285438."""
    assert sums([-0.5, -0.2, -0.5], [-0.8, -5.0, 0.0])["rejected_gradient"] == pytest.approx(0.6285438, rel=1e-6)
    assert sums([-0.5] * 3, [-0.8] * 3, Orpo(lam=0.1))["rejected_gradient"] == pytest.approx(0.06285438, rel=1e-6)
    assert sums([-0.5] * 3, [-0.8] * 3, Sft())["rejected_gradient"] == 0.0


def test_a_rejected_trace_that_the_student_is_sure_of_has_a_finite_gradient() -> None:
    """It grows like 1/|r|, up to the clamp, and is 0 beyond."""
    for r, bound in ((-1e-3, 1.01e3), (-1e-6, 1.01e6), (-1.01e-7, 1e7)):
        assert bound / 2 < sums([-0.5] * 3, [r] * 3)["rejected_gradient"] <= bound
    assert sums([-0.5] * 3, [0.0] * 3)["rejected_gradient"] == 0.0


def test_the_sampler_gap_is_the_difference_of_the_two_log_probabilities() -> None:
    batch = packed(GROUPS, real_rows=2)
    scores = PairScores(*(torch.full((3,), value).double() for value in (-0.5, -0.9, 0.5)), batch.has_rejected_K,
                        batch.weight_K)  # fmt: skip
    assert stats.summary(stats.batch_sums(batch, scores, Orpo(1.0)(scores)))["sampler_gap"] == pytest.approx(0.2)


def test_parts_are_combined_by_sum_and_the_last_by_maximum() -> None:
    parts = torch.arange(2 * len(stats.NAMES), dtype=torch.float64).view(2, -1)
    both = stats.combined(parts)
    assert both[0] == parts[0, 0] + parts[1, 0]
    assert both[-1] == parts[1, -1]
    assert stats.NAMES[-1] == "rejected_gradient"


def test_a_line_of_a_skipped_step_is_json_without_nan(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path, "tiny")
    layout.run.mkdir(parents=True)
    writer = MetricsWriter(layout)
    broken = torch.full((len(stats.NAMES),), math.nan, dtype=torch.float64)
    for applied, numbers in ((False, broken), (True, torch.ones_like(broken))):
        writer.append(
            step=1,
            epoch=0,
            attempt=1,
            version=0,
            learning_rate=0.1,
            lam=1.0,
            phi=0.5,
            seconds=2.0,
            result=StepResult(numbers, applied, (), math.nan, torch.tensor([[1.0, 1.0], [3.0, 1.0]])),
            shares=share_batch(GROUPS, 2, 100),
            cut=Truncation(prompts=1, traces=2),
            counts=StepCounts(rows=2, by_policy=(1, 0, 0, 1), staleness=(1,)),
        )
    writer.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    skipped, taken = (json.loads(line, parse_constant=refuse) for line in layout.metrics.read_text().splitlines())
    assert (skipped["skipped"], skipped["pairs"]) == (1, 0)
    assert {"loss", "sft", "grad_norm"} & skipped.keys() == set()
    assert (taken["skipped"], taken["loss"], taken["pairs"]) == (0, 1.0, 1.0)
    assert (taken["cut"], taken["cut_prompts"], taken["cut_traces"]) == (3, 1, 2)
    # by hand: (3 + 1) / (2 + 1)
    assert taken["time_balance"] == 1.3333
    assert (taken["micro_steps"], taken["tokens_by_rank"], taken["token_balance"]) == (1, [7, 3], 1.4)
