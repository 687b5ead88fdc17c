"""The report's charts, and its page: one HTML file that needs nothing else."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2

from orpo_ray import __version__
from orpo_ray.experiment import paper
from orpo_ray.experiment.charts import COLOURS, Line, line_chart
from orpo_ray.experiment.comparison import MEASURES
from orpo_ray.experiment.text import sections, shown

_OTHER_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#999999")


def charts(report: Mapping[str, Any]) -> dict[str, str]:
    """SVG documents by file name, without its ending."""
    return dict(_charts(report))


def _charts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for curve in report["curves"]:
        where = f"{curve['task']}, {curve['student']}"
        lines = [_line(recipe, points, scale=100) for recipe, points in curve["recipes"].items()]
        yield (
            f"accuracy-{_file(where)}",
            line_chart(f"Accuracy by epoch: {where}", "epoch", "test accuracy, %", _level(lines)),
        )
    for column in report["measures"]:
        where = f"{column['task']}, {column['student']}"
        for measure, sentence in MEASURES.items():
            lines = [_line(recipe, points) for recipe, points in column["measures"][measure].items()]
            if lines:
                title = f"{sentence[0].upper()}{sentence[1:]}"
                yield f"{measure.replace('_', '-')}-{_file(where)}", line_chart(title, f"epoch ({where})", "", lines)
    for option, sweeps in _by_option(report["sweeps"]).items():
        values = [point["value"] for point in sweeps[0]["points"]]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        lines = [
            Line(
                f"{sweep['task']}, {sweep['student']}",
                _OTHER_COLOURS[place % len(_OTHER_COLOURS)],
                [
                    (float(point["value"]) if numbers else float(at), *_bounds(point, 100))
                    for at, point in enumerate(sweep["points"])
                    if point["mean"] is not None
                ],
            )
            for place, sweep in enumerate(sweeps)
        ]
        labels = None if numbers else [str(value) for value in values]
        yield f"sweep-{_file(option)}", line_chart(f"Accuracy over {option}", option, "test accuracy, %", lines, labels)
    for model, rows in paper.ACCURACY.items():
        lines = [
            Line(shown(recipe), COLOURS[recipe], [(float(at), value, None, None) for at, value in enumerate(values)])
            for recipe, values in rows.items()
        ]
        title = f"The paper's accuracy: {model}"
        yield f"paper-{_file(model)}", line_chart(title, "task", "accuracy, %", lines, paper.TASKS)


def _line(recipe: str, points: Sequence[Mapping[str, Any]], scale: float = 1.0) -> Line:
    drawn = [(float(point["epoch"]), *_bounds(point, scale)) for point in points if point["mean"] is not None]
    return Line(shown(recipe), COLOURS.get(recipe, "#444444"), drawn)


def _level(lines: Sequence[Line]) -> list[Line]:
    """What is not trained stays where it is: a line of one point is drawn over all epochs."""
    last = max((point[0] for line in lines for point in line.points), default=0.0)
    return [
        Line(line.name, line.colour, [*line.points, (last, *line.points[0][1:])])
        if len(line.points) == 1 and last > 0
        else line
        for line in lines
    ]


def _bounds(point: Mapping[str, Any], scale: float) -> tuple[float, float | None, float | None]:
    low, high = (None if point[name] is None else scale * point[name] for name in ("low", "high"))
    return scale * point["mean"], low, high


def _by_option(sweeps: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for sweep in sweeps:
        found.setdefault(sweep["option"], []).append(sweep)
    return found


def _file(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def page(report: Mapping[str, Any], name: str, configuration: str) -> str:
    """The page.

    Args:
        configuration: the experiment's YAML, shown at its end.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    template = environment.from_string((files("orpo_ray.experiment") / "page.jinja").read_text(encoding="utf-8"))
    drawn = charts(report)
    return template.render(
        name=name,
        version=__version__,
        report=report,
        sections=list(sections(report)),
        charts={file: svg for file, svg in drawn.items() if not file.startswith("paper-")},
        paper_charts={file: svg for file, svg in drawn.items() if file.startswith("paper-")},
        configuration=configuration,
    )
