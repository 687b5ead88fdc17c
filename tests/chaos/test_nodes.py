"""Nodes of a cluster die, give notice and come back: each row of the plan is trained once, with whoever has a place."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from orpo_ray.phases.context import RunContext
from orpo_ray.training.ledger import read_ledger
from tests.chaos.harness import ROOT
from tests.chaos.nodes import nodes_context
from tests.chaos.run import plan_of
from tests.chaos.verdict import judge_ledger
from tests.chaos.victims import kill_family
from tests.tiny.models import make_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run_through(scenario: str, storage: Path) -> tuple[RunContext, list[dict[str, Any]]]:
    """The run to its end under `scenario`, judged; and what it said."""
    student = make_model(storage / "student")
    with (storage / "output.txt").open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nodes", str(storage), str(student), scenario],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        driver = psutil.Process(run.pid)
        try:
            code = run.wait(timeout=840)
        finally:
            kill_family(driver)
    said = [json.loads(line) for line in (storage / "said.jsonl").read_text().splitlines()]
    assert code == 0, (storage / "output.txt").read_text(errors="replace")[-6000:] + json.dumps(said[-3:])
    context = nodes_context(storage, student)
    verdict = judge_ledger(list(read_ledger(context.layout.ledger)), plan_of(context))
    assert verdict.clean, verdict
    return context, said


def sizes(said: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Workers and samplers of each attempt that said so: one that has less than all, and the first that has all again."""
    return [(line["workers"], line["samplers"]) for line in said if line["kind"] == "distill.places"]


def kinds(said: list[dict[str, Any]]) -> list[str]:
    return [line["kind"] for line in said if line["kind"] in ("fault", "distill.places", "distill.left")]


def test_workers_two_one_two(tmp_path: Path) -> None:
    """A node dies, and the checkpoint of two ranks is loaded by one; another comes, and its checkpoint is by two."""
    context, said = run_through("workers_two_one_two", tmp_path)
    assert sizes(said) == [(1, 2), (2, 2)]
    assert kinds(said) == ["fault", "distill.places", "distill.left", "distill.places"]
    ranks: dict[int, set[int]] = {}
    for line in read_ledger(context.layout.ledger):
        ranks.setdefault(line["attempt"], set()).add(line["rank"])
    assert ranks == {1: {0, 1}, 2: {0}, 3: {0, 1}}


def test_samplers_two_one_two(tmp_path: Path) -> None:
    """A node dies with what else was on it, as board, splitter or evaluator; another comes."""
    _, said = run_through("samplers_two_one_two", tmp_path)
    assert sizes(said)[0] == (2, 1)
    assert sizes(said)[-1] == (2, 2)
    assert kinds(said)[0] == "fault"
    assert kinds(said)[-2:] == ["distill.left", "distill.places"]


def test_a_node_that_is_taken_back_is_left_with_a_checkpoint(tmp_path: Path) -> None:
    """No step is trained twice: the attempt ends where it was, before the node goes."""
    context, said = run_through("a_worker_taken_back", tmp_path)
    assert kinds(said) == ["distill.left", "distill.places"]
    [left] = [line for line in said if line["kind"] == "distill.left"]
    assert left["why"] == "a node of its train workers is about to go"
    assert sizes(said) == [(1, 2)]
    assert {line["attempt"] for line in read_ledger(context.layout.ledger)} == {1, 2}
