"""What the overlap benchmark makes of a wall clock; nothing sleeps here."""

import pytest

from benchmarks import overlap


@pytest.mark.parametrize(
    ("setting", "wall", "bound", "ratio"),
    [
        (overlap.Setting(1, 1, sampling=1.0, training=0.5), 11.0, 10.0, 1.1),
        (overlap.Setting(1, 2, sampling=1.0, training=1.0), 12.0, 10.0, 1.2),
        (overlap.Setting(0, 1, sampling=1.0, training=1.0), 20.0, 10.0, 2.0),
    ],
)
def test_overlap_compares_with_the_longer_of_the_two(
    setting: overlap.Setting, wall: float, bound: float, ratio: float
) -> None:
    row = overlap.row_of(setting, wall, steps=10)
    assert (row["bound_s"], row["ratio"]) == (bound, ratio)


def test_parallelism_is_sampling_by_the_wall_clock() -> None:
    assert overlap.row_of(overlap.Setting(1, 2, sampling=1.0, training=0.0), 5.2, steps=10)["parallelism"] == 1.923
