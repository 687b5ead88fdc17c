"""The experiment's report as Markdown and CSV."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orpo_ray.evaluation.paired import p_value_text
from orpo_ray.experiment.comparison import MEASURES
from orpo_ray.report.wording import duration

NAMES: Mapping[str, str] = {
    "zero_shot_cot": "zero-shot CoT",
    "single_cot": "single-CoT fine-tuning",
    "diverse_cot": "diverse-CoT fine-tuning",
    "off_policy": "off-policy ORPO",
    "on_policy": "on-policy ORPO",
    "mixed_policy": "mixed-policy ORPO",
    "teacher_negatives": "off-policy ORPO, teacher's negatives",
}
"""As the paper's table has them."""


def shown(name: str) -> str:
    """A recipe for people."""
    return NAMES.get(name, name)


def interval(cell: Mapping[str, Any], scale: float = 100, digits: int = 1, sign: str = "") -> str:
    """As `57.0 ± 2.1`, or with bounds where they are not at equal distance; `–` where nothing was measured."""
    if cell["mean"] is None:
        return "–"
    mean = f"{scale * cell['mean']:{sign}.{digits}f}"
    if cell["low"] is None:
        return mean
    low, high = scale * (cell["mean"] - cell["low"]), scale * (cell["high"] - cell["mean"])
    if abs(low - high) < 0.5 * 10**-digits:
        return f"{mean} ± {(low + high) / 2:.{digits}f}"
    return f"{mean} ({scale * cell['low']:{sign}.{digits}f} to {scale * cell['high']:{sign}.{digits}f})"


def markdown(report: Mapping[str, Any], name: str) -> str:
    """The whole report as Markdown."""
    return "\n".join(_markdown(report, name)) + "\n"


def _markdown(report: Mapping[str, Any], name: str) -> Iterator[str]:
    runs = report["runs"]
    yield f"# {name}"
    yield ""
    yield f"{runs['done']} of {runs['planned']} runs are done; seeds {', '.join(map(str, report['seeds']))}."
    for run, why in runs["failed"].items():
        yield f"- {run} failed: {why}"
    for heading, table, note in sections(report):
        yield ""
        yield f"## {heading}"
        yield ""
        yield from _lines(table)
        if note:
            yield ""
            yield note


def sections(report: Mapping[str, Any]) -> Iterator[tuple[str, list[list[str]], str]]:
    """Each table of the report: heading, rows (the first is the header), and a note."""
    if report["table"]:
        yield "Accuracy on the test questions, %", _accuracy(report), _accuracy_note(report)
    if report["comparisons"]:
        yield "Paired tests between recipes", _tests(report), _TESTS_NOTE
    if any(gain["measured"] for gain in report["gains"]):
        yield "What each component adds, points", _gains(report), "The paper's are differences of its printed averages."
    if report["several_answers"]:
        yield "Several sampled answers, %", _several(report), "pass@k is the unbiased estimate of arXiv 2107.03374."
    for sweep in report["sweeps"]:
        where = f"{sweep['student']}, {sweep['task']}, {shown(sweep['recipe'] or 'the run as it is')}"
        rows = [[sweep["option"], "accuracy, %", "runs"]]
        rows += [[str(point["value"]), interval(point), str(len(point["values"]))] for point in sweep["points"]]
        yield f"{sweep['option']} ({where})", rows, ""
    yield "Cost", _costs(report), _COST_NOTE
    for model, rows in report["paper"]["accuracy"].items():
        header = [f"{model}, the paper's", *report["paper"]["tasks"], "average"]
        body = [
            [shown(recipe), *(f"{value:.2f}" for value in values), f"{report['paper']['average'][model][recipe]:.2f}"]
            for recipe, values in rows.items()
        ]
        yield f"The paper's figures: {model}", [header, *body], ""


_TESTS_NOTE = (
    "Difference: mean over runs (task × seed) of the second's accuracy less the first's, with Student's t interval over "
    "them; bootstrap: the same, runs and questions resampled. McNemar's exact test counts the questions that one of the two "
    "alone had right, over all runs; its p is also given adjusted for all tests of this table (Holm)."
)
_COST_NOTE = (
    "Core-hours: time × CPUs asked for, at most the machine's. Traces of teacher and initial student are shared by runs of "
    "one seed, and stand apart. Tokens: `trained` went through the loss, `sampled` were made by live students."
)


def _accuracy(report: Mapping[str, Any]) -> list[list[str]]:
    columns, students = report["columns"], {column["student"] for column in report["columns"]}
    several = len(columns) > len(students)
    header = ["", *(f"{column['task']}, {column['student']}" for column in columns)]
    header += [f"average, {item['student']}" for item in report["table"][0]["averages"]] if several else []
    rows = [header]
    for row in report["table"]:
        cells = [shown(row["recipe"]), *map(interval, row["cells"])]
        rows.append(cells + ([interval(item) for item in row["averages"]] if several else []))
    if report["teacher"]:
        taught = [report["teacher"].get(column["task"], {"mean": None}) for column in columns]
        rows.append(["teacher, greedy", *map(interval, taught), *([""] * (len(header) - 1 - len(columns)))])
    return rows


def _accuracy_note(report: Mapping[str, Any]) -> str:
    if any(cell["interval"] == "wilson" for row in report["table"] for cell in row["cells"]):
        return "95 % intervals: Student's t over seeds; of a single run Wilson's, which knows nothing of other seeds."
    return "Mean over seeds with the 95 % interval of Student's t."


def _tests(report: Mapping[str, Any]) -> list[list[str]]:
    header = ["student", "from", "to", "difference, points", "bootstrap", "gained", "lost", "McNemar p", "adjusted"]
    return [header] + [
        [
            item["student"],
            shown(item["first"]),
            shown(item["second"]),
            interval(item["difference"], sign="+"),
            interval(item["bootstrap"], sign="+"),
            f"{item['gained']:,}",
            f"{item['lost']:,}",
            p_value_text(item["mcnemar_p"]),
            p_value_text(item["mcnemar_p_holm"]),
        ]
        for item in report["comparisons"]
    ]


def _gains(report: Mapping[str, Any]) -> list[list[str]]:
    students = list(dict.fromkeys(column["student"] for column in report["columns"]))
    rows = [["component", "from → to", *students, "in the paper"]]
    for gain in report["gains"]:
        measured = [interval(gain["measured"].get(student, {"mean": None}), sign="+") for student in students]
        printed = "; ".join(f"{value:+.2f} ({model})" for model, value in gain["paper_points"].items())
        rows.append([gain["what"], f"{shown(gain['first'])} → {shown(gain['second'])}", *measured, printed])
    return rows


def _several(report: Mapping[str, Any]) -> list[list[str]]:
    names = list(dict.fromkeys(name for item in report["several_answers"] for name in item["measured"]))
    rows = [["", "task, student", *names]]
    for item in report["several_answers"]:
        cells = [interval(item["measured"].get(name, {"mean": None})) for name in names]
        rows.append([shown(item["recipe"]), f"{item['task']}, {item['student']}", *cells])
    return rows


def _costs(report: Mapping[str, Any]) -> list[list[str]]:
    costs = report["costs"]
    rows = [["", "runs", "time", "core-hours", "GPU-hours", "tokens trained", "tokens sampled"]]
    for name, cost in costs["recipes"].items():
        tokens = cost["tokens"]
        rows.append([shown(name), str(cost["runs"]), *_cost(cost), f"{tokens['trained']:,}", f"{tokens['sampled']:,}"])
    rows.append(["shared traces", "", *_cost(costs["shared"]), "", ""])
    rows.append(["all", str(report["runs"]["done"]), *_cost(costs["total"]), "", ""])
    return rows


def _cost(cost: Mapping[str, Any]) -> list[str]:
    return [duration(cost["seconds"]), f"{cost['core_hours']:.2f}", f"{cost['gpu_hours']:.2f}"]


def _lines(table: Sequence[Sequence[str]]) -> Iterator[str]:
    header, *body = ([cell.replace("|", "\\|") for cell in row] for row in table)
    yield "| " + " | ".join(header) + " |"
    yield "|" + "|".join("---" for _ in header) + "|"
    for row in body:
        yield "| " + " | ".join(row) + " |"


def accuracy_csv(report: Mapping[str, Any]) -> str:
    """One line for each run: what a spreadsheet or a script begins with."""
    out = io.StringIO()
    fields = ["name", "recipe", "task", "student", "seed", "option", "value", "epoch", "accuracy", "correct", "total"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*fields, "seconds", "core_hours", "gpu_hours", "tokens_trained", "tokens_sampled"])
    for run in report["results"]:
        swept = run["swept"] or {"option": "", "value": ""}
        correct, total = run["curve"][str(run["epoch"])]
        writer.writerow(
            [
                *(run[name] for name in ("name", "recipe", "task", "student", "seed")),
                swept["option"],
                swept["value"],
                run["epoch"],
                f"{run['accuracy']:.6f}",
                correct,
                total,
                *(f"{run['cost'][name]:.4f}" for name in ("seconds", "core_hours", "gpu_hours")),
                run["tokens"].get("trained", 0),
                run["tokens"].get("sampled", 0),
            ]
        )
    return out.getvalue()


def epochs_csv(report: Mapping[str, Any]) -> str:
    """What was measured by epoch: one line for each column, recipe, measure and epoch."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["student", "task", "recipe", "measure", "epoch", "mean", "low", "high"])
    for curve in report["curves"]:
        for recipe, points in curve["recipes"].items():
            for point in points:
                writer.writerow([curve["student"], curve["task"], recipe, "test accuracy", *_numbers(point)])
    for column in report["measures"]:
        for measure in MEASURES:
            for recipe, points in column["measures"][measure].items():
                for point in points:
                    writer.writerow([column["student"], column["task"], recipe, measure, *_numbers(point)])
    return out.getvalue()


def _numbers(point: Mapping[str, Any]) -> list[Any]:
    values = [point[name] for name in ("mean", "low", "high")]
    return [point["epoch"], *("" if value is None else f"{value:.6f}" for value in values)]
