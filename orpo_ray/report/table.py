"""A run's report for people: what it did, how the student fares, where it lies."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from orpo_ray.evaluation.accuracy import Accuracy
from orpo_ray.report.wording import duration, from_here, percent, several_answers_sentence

_BAR = 30


def print_report(console: Console, report: Mapping[str, Any], *, files: bool = False) -> None:
    """Print the report of `run_report`.

    Args:
        files: also where everything lies.
    """
    for part in _parts(report, files):
        # Lines are left whole, so that a path or a command can be copied.
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def _parts(report: Mapping[str, Any], files: bool) -> Iterator[RenderableType]:
    yield f"[bold]{report['name']}[/bold]: {report['state']}, {duration(report['seconds'])} of work"
    if report["error"]:
        yield Text(report["error"], style="red")
    yield Text()
    yield phase_table(report["phases"])
    if report["happened"]:
        yield Text()
        yield from (Text(f"{item['time'][:19]}  {item['text']}", style="dim") for item in report["happened"])
    for split in sorted({evaluation["split"] for evaluation in report["evaluations"]}):
        of_split = [evaluation for evaluation in report["evaluations"] if evaluation["split"] == split]
        yield Text()
        yield accuracy_table(split, of_split, report["teacher"])
        yield from (Text(line) for item in of_split if (line := several_answers_sentence(item)))
        yield from _gain(of_split)
    yield from _training(report["training"])
    yield Text()
    if report["student"] is not None:
        yield Text(f"student  {from_here(Path(report['student']['path']))}")
        yield Text(f"try it   {report['student']['try']}")
    elif report["state"] in ("interrupted", "failed", "killed"):
        yield Text(f"go on with  {report['command']}")
    if files:
        yield Text()
        yield _pairs_table("what", "where", report["files"].items())


def phase_table(phases: Sequence[Mapping[str, Any]]) -> Table:
    """One line a phase: state, time, what it did."""
    table = Table(box=None, pad_edge=False)
    table.add_column("phase")
    table.add_column("state")
    table.add_column("time", justify="right")
    table.add_column("")
    for phase in phases:
        seconds = duration(phase["seconds"]) if phase["state"] != "waiting" else ""
        table.add_row(phase["name"], phase["state"], seconds, Text(phase["error"] or phase["did"]))
    return table


def accuracy_table(
    split: str,
    evaluations: Sequence[Mapping[str, Any]],
    teacher: Mapping[str, Any] | None = None,
    name: str = "before",
) -> Table:
    """Accuracy before (`name`) and after each epoch on one split, and the teacher's, with 95 % intervals."""
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{split} accuracy")
    for heading in ("right", "accuracy (95 % interval)", "with an answer", "tokens"):
        table.add_column(heading, justify="right")
    for evaluation in evaluations:
        accuracy = Accuracy(evaluation["correct"], evaluation["total"])
        table.add_row(
            f"after epoch {evaluation['epoch']}" if evaluation["epoch"] else name,
            f"{accuracy.correct}/{accuracy.total}",
            str(accuracy),
            percent(evaluation["parsed"] / accuracy.total) if accuracy.total and "parsed" in evaluation else "",
            f"{evaluation['mean_tokens']:.0f}" if "mean_tokens" in evaluation else "",
        )
    if teacher is not None:
        accuracy = Accuracy(teacher["correct"], teacher["total"])
        who = f"teacher ({teacher['measured']})"
        table.add_row(who, f"{accuracy.correct}/{accuracy.total}", str(accuracy), "", "")
    return table


def _gain(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[Text]:
    first, last = evaluations[0], evaluations[-1]
    if first["epoch"] != 0 or last["epoch"] == 0 or not first["total"]:
        return
    before, after = Accuracy(first["correct"], first["total"]), Accuracy(last["correct"], last["total"])
    apart = before.interval[1] < after.interval[0] or after.interval[1] < before.interval[0]
    yield Text(
        f"change   {100 * (after.rate - before.rate):+.1f} points, the intervals {'are apart' if apart else 'overlap'}"
    )


def _training(training: Mapping[str, Any] | None) -> Iterator[RenderableType]:
    if training is None:
        return
    yield Text()
    policies = training["by_policy"]
    steps = f"{training['steps']:,} steps" if "steps" in training else f"step {training['step']:,} so far"
    yield Text(
        f"pairs    {training['pairs']:,} trained in {steps}; prompts by their negatives: "
        f"{policies.get('live', 0):,} live, {policies.get('initial', 0):,} initial, "
        + (f"{policies['teacher']:,} the teacher's, " if policies.get("teacher") else "")
        + f"{policies.get('none', 0):,} none (SFT)"
    )
    counts = {int(lag): rows for lag, rows in training["staleness"].items()}
    total = sum(counts.values())
    if total:
        bars = [
            (str(lag), f"{'█' * max(1 if counts[lag] else 0, round(_BAR * counts[lag] / total))} "
             f"{counts[lag]:,} ({percent(counts[lag] / total)})")
            for lag in sorted(counts)
        ]  # fmt: skip
        yield Text()
        yield _pairs_table("staleness", "prompts with live negatives", bars)


def _pairs_table(left: str, right: str, rows: Any) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(left)
    table.add_column(right, overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table
