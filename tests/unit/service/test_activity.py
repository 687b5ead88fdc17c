"""Tokens a second and utilisation, from lines as the workers write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.service.activity import WINDOW_S, activity, covered


def write(logs: Path, process: str, *lines: dict[str, Any]) -> None:
    logs.mkdir(exist_ok=True)
    with (logs / f"{process}.jsonl").open("a") as file:
        for line in lines:
            second = line.pop("at")
            time = f"2024-01-01T00:{second // 60:02d}:{second % 60:02d}.000Z"
            file.write(json.dumps({"time": time, "process": process} | line) + "\n")


def test_nobody_has_said_anything(tmp_path: Path) -> None:
    assert activity(tmp_path / "logs") == []


def test_overlapping_work_is_counted_once_and_the_gate_is_no_work(tmp_path: Path) -> None:
    block = {"kind": "sampler.block", "tokens": 100}
    write(
        tmp_path, "a",
        {"at": 10, "seconds": 10.0, "waited": 0.0} | block,
        {"at": 12, "seconds": 10.0, "waited": 8.0} | block,  # 10 to 12, behind the other
        {"at": 40, "seconds": 28.0, "waited": 20.0} | block,  # 32 to 40
    )  # fmt: skip
    (found,) = activity(tmp_path)
    assert (found.group, found.workers, found.seconds) == ("samplers", 1, 40.0)
    assert found.tokens_per_s == pytest.approx(300 / 40)
    assert found.utilisation == pytest.approx((12 + 8) / 40)


def test_groups_stand_in_the_order_of_a_run_and_workers_are_a_mean(tmp_path: Path) -> None:
    step = {"kind": "train.step", "tokens": 50, "seconds": 5.0}
    write(tmp_path, "rank-0", {"at": 20} | step, {"at": 30} | step)
    write(tmp_path, "rank-1", {"at": 20} | step)
    write(
        tmp_path,
        "proxy",
        {"at": 20, "kind": "teacher.answered", "tokens": 40, "seconds": 20.0},
        {"at": 25, "kind": "x"},
    )
    teacher, trainer = activity(tmp_path)
    assert (teacher.group, trainer.group, trainer.workers) == ("teacher", "trainer", 2)
    assert trainer.utilisation == pytest.approx((10 + 5) / 2 / 15)
    assert teacher.utilisation == pytest.approx(20 / 30, abs=1e-4)


def test_what_was_long_ago_is_left_out(tmp_path: Path) -> None:
    step = {"kind": "train.step", "tokens": 50, "seconds": 1.0}
    write(tmp_path, "proxy", {"at": 0, "kind": "teacher.answered", "tokens": 40, "seconds": 1.0})
    write(tmp_path, "rank-0", {"at": 5} | step, {"at": int(WINDOW_S) + 60} | step)
    (found,) = activity(tmp_path)
    assert (found.group, found.tokens_per_s) == ("trainer", 50.0)


def test_a_union_is_no_sum() -> None:
    assert covered([(0, 2), (1, 3), (5, 6), (5.5, 5.6)]) == 4
    assert covered([]) == 0
