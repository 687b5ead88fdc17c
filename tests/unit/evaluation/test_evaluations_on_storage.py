"""Evaluations that were made in another way than the run asks for now are not shown beside its own."""

import json
from pathlib import Path

from orpo_ray.evaluation.evaluator import drop_other_evaluations, evaluation_file, write_json


def test_only_evaluations_made_in_another_way_go(tmp_path: Path) -> None:
    for epoch, split, key in [(0, "test", "a"), (1, "test", "b"), (1, "validation", "c"), (2, "validation", "a")]:
        write_json(evaluation_file(tmp_path, epoch, split), {"split": split, "key": key})
    dropped = drop_other_evaluations(tmp_path, {"test": "a", "validation": "c"})
    assert dropped == ["epoch-001-test.json", "epoch-002-validation.json"]
    left = [json.loads(file.read_text())["key"] for file in sorted(tmp_path.iterdir())]
    assert left == ["a", "c"]


def test_a_split_that_is_no_longer_there_goes_too(tmp_path: Path) -> None:
    write_json(evaluation_file(tmp_path, 1, "validation"), {"split": "validation", "key": "c"})
    assert drop_other_evaluations(tmp_path, {"test": "a"}) == ["epoch-001-validation.json"]
    assert drop_other_evaluations(tmp_path / "nothing", {"test": "a"}) == []
