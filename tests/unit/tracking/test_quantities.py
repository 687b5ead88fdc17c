"""One table of quantities: what is emitted is in it and shown, what is shown is emitted, and alerts ask for what there is."""

import ast
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orpo_ray.tracking import meter
from orpo_ray.tracking.dashboard import dashboard, expressions
from orpo_ray.tracking.driver_metrics import DriverMetrics
from orpo_ray.tracking.quantities import QUANTITIES
from tests.unit.report.traced import METRICS
from tests.unit.tracking.test_follow import config

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy" / "monitoring"
LOW_CARDINALITY = {"run", "phase", "rank", "group", "status", "verdict", "origin", "staleness", "split", "cause"}


def emitted() -> Iterator[tuple[str, str, set[str]]]:
    """Name, file and tags of every `record(…)` and `timed(…)` in the package."""
    for file in (ROOT / "orpo_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("record", "timed") and node.args:
                name = node.args[0]
                if isinstance(name, ast.Constant):
                    yield str(name.value), file.name, {keyword.arg or "" for keyword in node.keywords}


def named_in(expression: str) -> set[str]:
    """Quantities that a PromQL expression asks for."""
    found = set(re.findall(r"\bray_(orpo_\w+)", expression))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_what_is_emitted_is_in_the_table_with_its_tags() -> None:
    for name, file, tags in emitted():
        quantity = QUANTITIES[name]
        assert tags - {"phase"} == set(quantity.tags), f"{file}: {name}"
        assert quantity.phase or "phase" in tags or quantity.name in ("orpo_engines_configured",), f"{file}: {name}"


def test_what_is_in_the_table_is_emitted() -> None:
    direct = {name for name, _, _ in emitted()}
    from_lines = {quantity.name for quantity in QUANTITIES.values() if quantity.line is not None}
    assert direct | from_lines == QUANTITIES.keys()
    assert not direct & from_lines, "counted twice"


def test_lines_hold_what_the_table_takes_from_them() -> None:
    line = METRICS | {"lambda": 0.1, "phi": 0.5}
    for quantity in QUANTITIES.values():
        if quantity.line is not None:
            assert quantity.line in line, quantity
            assert isinstance(line[quantity.line], dict) == bool(quantity.tags), quantity


def test_names_kinds_and_tags_are_prometheus_s_own_way() -> None:
    for quantity in QUANTITIES.values():
        assert re.fullmatch(r"orpo_[a-z_]+", quantity.name)
        assert quantity.name.endswith("_total") == (quantity.kind == "counter")
        assert set(quantity.tags) <= LOW_CARDINALITY
        assert quantity.description.endswith(".")
        if quantity.kind == "histogram":
            assert quantity.name.endswith("_seconds")


def test_each_quantity_is_shown_and_each_shown_is_a_quantity() -> None:
    asked = [
        {name for target in panel["targets"] for name in named_in(target["expr"])}
        for panel in dashboard()["panels"]
        if "targets" in panel
    ]
    assert set().union(*asked) == QUANTITIES.keys()
    assert {name for names in asked if len(names) == 1 for name in names} == QUANTITIES.keys(), (
        "a panel of its own each"
    )


def test_histograms_are_asked_for_as_what_they_export() -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            for name in re.findall(r"\bray_(orpo_\w+)", target["expr"]):
                plain = re.sub(r"_(bucket|sum|count)$", "", name)
                assert (name != plain) == (QUANTITIES[plain].kind == "histogram"), target["expr"]


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_dashboard_that_is_deployed_is_what_the_code_makes() -> None:
    found = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    assert found == dashboard(), "make it anew: python -m orpo_ray.tracking.dashboard"


def test_expressions_ask_for_what_each_kind_exports() -> None:
    histogram = expressions(QUANTITIES["orpo_train_wait_seconds"])
    assert histogram[0][0] == (
        "histogram_quantile(0.5, sum by (le, run, rank) "
        '(rate(ray_orpo_train_wait_seconds_bucket{run=~"$run"}[$__rate_interval])))'
    )
    assert expressions(QUANTITIES["orpo_train_loss"]) == [
        ('max by (run) (ray_orpo_train_loss{run=~"$run"})', "{{run}}")
    ]


def test_alerts_ask_for_quantities_and_tags_that_there_are() -> None:
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    rules = {rule["alert"]: rule for rule in group["rules"]}
    assert rules.keys() >= {
        "OrpoRayStreamStalled", "OrpoRayStalenessAtItsBound", "OrpoRayVerifierError", "OrpoRayTeacherFails",
        "OrpoRayEngineRestarts",
    }  # fmt: skip
    for rule in rules.values():
        names = named_in(rule["expr"])
        assert names
        assert names <= QUANTITIES.keys()
        tags = {tag for name in names for tag in QUANTITIES[name].tags} | {"run", "phase"}
        asked = set(re.findall(r'(\w+)\s*!?=~?\s*"', rule["expr"]))
        asked |= set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert asked <= tags, rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


class _Ray(types.ModuleType):
    """Stands in Ray's place where it is asked whether it runs."""

    def is_initialized(self) -> bool:
        return True


class _Metric:
    """Stands in the place of one of Ray's metrics."""

    def __init__(self, given: list[Any], name: str) -> None:
        self._given, self._name = given, name

    def set(self, value: float, tags: dict[str, str]) -> None:
        self._given.append((self._name, value, tags))

    inc = observe = set


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, str]]]:
    """What is given to Ray's metrics, had Ray been there."""
    found: list[tuple[str, float, dict[str, str]]] = []
    monkeypatch.setitem(sys.modules, "ray", _Ray("ray"))
    monkeypatch.setattr(meter, "_metric", lambda name: _Metric(found, name))
    monkeypatch.setattr(meter, "_gauges", {})
    monkeypatch.setattr(meter, "_keep_giving", lambda: None)  # tests give again themselves
    monkeypatch.setenv("ORPO_RAY_RUN", "toy")
    return found


def test_a_step_s_line_gives_every_quantity_that_is_taken_from_it(given: list[Any]) -> None:
    meter.record_step(METRICS | {"by_policy": {"live": 3, "initial": 0}, "staleness": {"0": 2, "1": 1}})
    values = {(name, tuple(sorted(tags.items()))): value for name, value, tags in given}
    of_run = (("phase", "distill"), ("run", "toy"))
    assert values["orpo_train_loss", of_run] == 1.5
    assert values["orpo_train_rows_total", (("origin", "live"), *of_run)] == 3
    assert ("orpo_train_rows_total", (("origin", "initial"), *of_run)) not in values, "nothing is added"
    assert values["orpo_train_stale_rows_total", (*of_run, ("staleness", "1"))] == 1
    assert values["orpo_train_steps_total", of_run] == 1


def test_gauges_alone_are_given_again_each_with_its_last_value(given: list[Any]) -> None:
    for value in (2.0, 1.0):
        meter.record("orpo_train_loss", value)
        meter.record("orpo_train_steps_total")
    meter.record("orpo_eval_accuracy", 0.5, split="test")
    del given[:]
    meter.give_again()
    assert [(name, value) for name, value, _ in given] == [("orpo_train_loss", 1.0), ("orpo_eval_accuracy", 0.5)]
    assert given[1][2] == {"run": "toy", "phase": "evaluate", "split": "test"}


def test_a_number_that_is_none_is_not_given(given: list[Any]) -> None:
    meter.record("orpo_train_loss", float("nan"))
    assert given == []


def test_without_ray_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(meter, "_metric", lambda name: pytest.fail("asked for"))
    meter.record("orpo_train_loss", 1.0)


def test_a_metric_that_ray_refuses_ends_nothing(
    given: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> Any:
        raise ValueError("no such thing")

    monkeypatch.setattr(meter, "_metric", broken)
    for _ in range(3):
        meter.record("orpo_eval_epoch", 1.0, split="test")
    assert len([text for text in caplog.messages if "orpo_eval_epoch" in text]) == 1


def test_the_driver_says_which_phase_works_and_how_it_ended(given: list[Any]) -> None:
    metrics = DriverMetrics(config(), lasting=False)
    metrics("phase.start", {"phase": "TEACH"})
    metrics("teach.progress", {"done": 5, "total": 20})
    metrics("run.failed", {"phase": "TEACH", "cause": "VerifierError"})
    found = [(name, value, tags.get("phase")) for name, value, tags in given]
    assert ("orpo_phase_running", 1.0, "teach") in found
    assert ("orpo_phase_progress", 0.25, "teach") in found
    assert found[-2:] == [("orpo_phase_running", 0.0, "teach"), ("orpo_run_failures_total", 1.0, "teach")]
    assert given[-1][2]["cause"] == "VerifierError"
