"""`orpo-ray plan`: a dry run, and the exit code that says whether it fits."""

import json
from pathlib import Path

from tests.unit.cli.conftest import Call


def test_it_prints_the_phases_and_creates_nothing(call: Call) -> None:
    before = sorted(Path.cwd().rglob("*"))
    ended = call("plan", "toy.yaml", "--set", "task.train_size=1000")
    assert ended.code == 0, ended.err
    for part in ("toy: cpu", "TEACH", "1 sampler", "2 train workers", "8,000  2,050,560 tokens", "It fits on this"):
        assert part in ended.out, ended.out
    assert sorted(Path.cwd().rglob("*")) == before


def test_as_json_it_is_data(call: Call) -> None:
    plan = json.loads(call("plan", "toy.yaml", "--json", "--set", "task.train_size=1000").out)
    assert plan["fits"] is True
    assert [group["name"] for group in plan["phases"]["EVALUATE"]] == ["evaluator"]
    assert plan["amounts"]["pairs"] == 1000 * 5 * 4


def test_what_does_not_fit_is_said_beside_the_plan(call: Call) -> None:
    Path("cluster.yaml").write_text("nodes: [{cpus: 4}]\n")
    ended = call("plan", "toy.yaml", "--cluster", "cluster.yaml")
    assert ended.code == 2
    assert "TEACH" in ended.out
    assert ended.err.splitlines()[0] == "orpo-ray: toy does not fit on cluster.yaml"
    assert "  - DISTILL: data task: 1 CPU" in ended.err
    assert "Traceback" not in ended.err


def test_a_size_that_is_none(call: Call) -> None:
    ended = call("plan", "toy.yaml", "--student-parameters", "large")
    assert (ended.code, ended.err) == (
        2,
        "orpo-ray: --student-parameters large: write the student's size as 135M or 1.1B\n",
    )
