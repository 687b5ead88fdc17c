"""What the scale benchmark makes of memory and times, on figures made up here; nothing is timed."""

import argparse
from typing import Any

import pytest

from benchmarks import scale


def scale_run(groups_per_s: float, first: float, **memory: list[tuple[int, float]]) -> dict[str, Any]:
    steps = [step for step, _ in memory["driver"]]
    rows = [
        {"step": step, **{name.replace("_", " "): found[at][1] for name, found in memory.items()}}
        for at, step in enumerate(steps)
    ]
    return {"groups_per_s": groups_per_s, "first_batch_s": first, "memory_mib": rows}


def scale_summary() -> dict[str, Any]:
    def run(factor: float, first: float) -> dict[str, Any]:
        growing = [(4, 100 * factor), (8, 130 * factor)]
        return scale_run(
            7000.0, first, driver=growing, split_coordinator=growing, board_and_gate=[(4, 50.0), (8, 50.0)]
        )

    runs = {16: [run(1.0, 2.0), run(1.0, 2.0), run(1.0, 9.0)], 64: [run(1.0, 3.0), run(1.2, 3.0), run(1.1, 1.0)]}
    return scale.summary(runs, argparse.Namespace(few=16, many=64, global_batch=4))


def test_scale_compares_memory_after_equal_work_by_medians() -> None:
    driver = scale_summary()["memory"]["driver"]
    assert (driver["few_mib"], driver["many_mib"], driver["ratio"]) == (100.0, pytest.approx(110.0), 1.1)


def test_scale_takes_the_peak_from_the_round_that_read_everything() -> None:
    memory = scale_summary()["memory"]
    assert (memory["driver"]["many_peak_mib"], memory["driver"]["peak_ratio"]) == (130.0, 1.3)
    assert memory["board and gate"]["peak_ratio"] == 1.0


def test_scale_gives_the_median_time_to_the_first_batch_of_either_side() -> None:
    assert scale_summary()["first_batch_s"] == [2.0, 3.0]


def test_scale_looks_at_memory_after_equal_work_and_at_the_end() -> None:
    assert scale.sample_steps(steps=2000, equal=20) == [20, *range(100, 2001, 100)]
    assert scale.sample_steps(steps=20, equal=20) == list(range(1, 21))
