"""The Grafana dashboard, from the table of quantities: `python -m orpo_ray.tracking.dashboard > dashboard.json`."""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from orpo_ray.tracking.quantities import QUANTITIES, Quantity

_UNITS = {"seconds": "s", "share": "percentunit"}
_ROWS = {
    "phase": "Run",
    "run": "Run",
    "teacher": "Teacher",
    "engine": "Student engines",
    "engines": "Student engines",
    "sampler": "Samplers",
    "train": "Training",
    "eval": "Held-out accuracy",
}
_WIDTH, _HEIGHT, _ACROSS = 8, 7, 3
_OF_RUN = 'run=~"$run"'


def _rate(name: str, what: str = "") -> str:
    return f"sum by (run) (rate(ray_{name}{what}{{{_OF_RUN}}}[$__rate_interval]))"


def _busy(wait: str, whole: str) -> str:
    return f"1 - {_rate(wait, '_sum')} / {_rate(whole, '_sum')}"


_TOGETHER = (
    (
        "tokens a second", "Tokens that each part writes or reads a second.", "short",
        (
            (_rate("orpo_teacher_tokens_total"), "{{run}} teacher"),
            (_rate("orpo_sampler_tokens_total"), "{{run}} samplers"),
            (_rate("orpo_train_tokens_total"), "{{run}} trainer"),
            (_rate("orpo_eval_tokens_total"), "{{run}} evaluator"),
        ),
    ),
    (
        "utilisation", "Time that is not spent in waiting: samplers' at the gate, ranks' for their rows.", "percentunit",
        (
            (_busy("orpo_sampler_gate_seconds", "orpo_sampler_block_seconds"), "{{run}} samplers"),
            (_busy("orpo_train_wait_seconds", "orpo_train_step_seconds"), "{{run}} trainer"),
        ),
    ),
)  # fmt: skip
"""Panels over several quantities: title, words, unit, and PromQL with legend."""


def dashboard() -> dict[str, Any]:
    """Some panels over several quantities, then one for each, in rows by what they are of."""
    return {
        "title": "orpo_ray",
        "uid": "orpo-ray",
        "tags": ["orpo-ray"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_data_source(), _run()]},
        "panels": list(_panels()),
    }


def expressions(quantity: Quantity) -> list[tuple[str, str]]:
    """PromQL and legend of each line of the quantity's panel."""
    by = ["run", *(["phase"] if not quantity.phase else []), *quantity.tags]
    names = ", ".join(by)
    legend = " ".join(f"{{{{{name}}}}}" for name in by)
    of_run = f"{quantity.exported}{{{_OF_RUN}}}"
    match quantity.kind:
        case "gauge":
            return [(f"max by ({names}) ({of_run})", legend)]
        case "counter":
            return [(f"sum by ({names}) (rate({of_run}[$__rate_interval]))", legend)]
        case "histogram":
            buckets = f"rate({quantity.exported}_bucket{{{_OF_RUN}}}[$__rate_interval])"
            return [
                (f"histogram_quantile({share}, sum by (le, {names}) ({buckets}))", f"{legend} {words}")
                for share, words in ((0.5, "median"), (0.95, "95 %"))
            ]


def _panels() -> Iterator[dict[str, Any]]:
    yield _row("Together", 1, 0)
    for place, (title, words, unit, targets) in enumerate(_TOGETHER):
        yield _graph(title, words, unit, targets, number=2 + place, x=place * _WIDTH, y=1)
    number, y = 2 + len(_TOGETHER), 1 + _HEIGHT
    for row, quantities in groupby(QUANTITIES.values(), key=lambda quantity: _ROWS[quantity.name.split("_")[1]]):
        yield _row(row, number, y)
        number, y = number + 1, y + 1
        column = 0
        for quantity in quantities:
            if column == _ACROSS:
                column, y = 0, y + _HEIGHT
            yield _panel(quantity, number, column * _WIDTH, y)
            number, column = number + 1, column + 1
        y += _HEIGHT


def _row(title: str, number: int, y: int) -> dict[str, Any]:
    return {"id": number, "type": "row", "title": title, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": []}


def _panel(quantity: Quantity, number: int, x: int, y: int) -> dict[str, Any]:
    unit = _UNITS.get(quantity.unit, "short")
    title = quantity.name.removeprefix("orpo_").removesuffix("_total").replace("_", " ")
    if quantity.kind == "counter":
        title += " a second"
    elif quantity.unit and quantity.unit not in _UNITS:
        title += f" ({quantity.unit})"
    return _graph(title, quantity.description, unit, expressions(quantity), number=number, x=x, y=y)


def _graph(
    title: str, words: str, unit: str, targets: Iterable[tuple[str, str]], *, number: int, x: int, y: int
) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": words,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y},
        "fieldConfig": {
            "defaults": {"unit": unit, "custom": {"showPoints": "auto", "spanNulls": True}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(targets)
        ],
    }


def _data_source() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _run() -> dict[str, Any]:
    query = "label_values(ray_orpo_phase_running, run)"
    return {
        "name": "run",
        "type": "query",
        "label": "Run",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": {"query": query, "refId": "runs"},
        "definition": query,
        "multi": True,
        "includeAll": True,
        "refresh": 2,
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1, ensure_ascii=False))
