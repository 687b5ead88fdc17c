"""The whole report of a run: what `orpo-ray report` writes, as HTML or Markdown."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import yaml

from orpo_ray.config.layout import RunLayout
from orpo_ray.evaluation.accuracy import Accuracy
from orpo_ray.report.browse import RunTraces
from orpo_ray.report.cost import PhaseCost, phase_costs
from orpo_ray.report.curves import Training, epoch_rows, read_training
from orpo_ray.report.data_card import data_card
from orpo_ray.report.data_card_text import data_card_grids
from orpo_ray.report.document import Code, Document, Figure, Paragraph, Part, Section
from orpo_ray.report.grid import Grid, number
from orpo_ray.report.show import read_evaluations, run_report
from orpo_ray.report.svg import Level, Series, bar_chart, line_chart
from orpo_ray.report.wording import duration, percent

SAMPLES = 5
"""Held-out prompts that are shown with the student's answer before and after."""

_CURVES = (
    ("Loss", "nats a token", (("whole loss", "loss"), ("SFT term", "sft"))),
    ("Odds-ratio term", "nats", (("odds-ratio term", "odds_ratio"),)),
    ("Log-odds margin of chosen over rejected", "nats", (("margin", "margin"),)),
    ("Pairs whose chosen trace is the likelier", "share", (("share", "accuracy"),)),
    (
        "Mean log-probability of a token",
        "nats",
        (("chosen", "chosen_logp"), ("rejected", "rejected_logp")),
    ),
    ("Gradient norm before clipping", "", (("gradient norm", "grad_norm"),)),
    ("Learning rate", "", (("learning rate", "learning_rate"),)),
    (
        "Tokens a second",
        "tokens/s",
        (("through the trainer", "trainer_tokens_per_s"), ("live samplers", "sampled_tokens_per_s")),
    ),
    ("Staleness, mean of live negatives", "versions", (("staleness", "staleness_mean"),)),
)
_EPOCH_MEANS = (
    ("loss", "loss"),
    ("SFT term", "sft"),
    ("odds-ratio term", "odds_ratio"),
    ("margin", "margin"),
    ("chosen likelier", "accuracy"),
    ("gradient norm", "grad_norm"),
    ("learning rate", "learning_rate"),
    ("staleness", "staleness_mean"),
    ("trained tokens/s", "trainer_tokens_per_s"),
    ("sampled tokens/s", "sampled_tokens_per_s"),
)


def full_report(layout: RunLayout, *, alive: bool) -> Document:
    """Everything that the run's files say, of a run that is done, works or was stopped.

    Args:
        alive: whether a process works on it.

    Raises:
        InputError: its traces are gone, or a file of it cannot be read.
    """
    record = json.loads(layout.state.read_text(encoding="utf-8"))
    report = run_report(layout, alive=alive)
    evaluations = read_evaluations(layout.evaluations)
    training = read_training(layout.metrics)
    card = _card(layout, record)
    prepare = record["phases"].get("PREPARE", {}).get("result", {})
    costs = list(phase_costs(report["phases"], prepare.get("resources", {}), card, training, report["evaluations"]))
    sections = [
        Section("Outcome", list(_outcome(report, evaluations))),
        Section("Training", list(_training(training))),
        Section("Data", list(_data(card))),
        Section("Time and cost", list(_cost(costs))),
        Section("Sample traces, before and after", list(_samples(evaluations))),
        Section("Environment", list(_environment(prepare.get("environment"), record))),
        Section("Configuration", list(_configuration(record))),
    ]
    began = datetime.fromisoformat(report["started"]).strftime("%Y-%m-%d %H:%M UTC")
    return Document(
        title=f"Run {report['name']}",
        subtitle=f"{report['state']}; begun {began}, {duration(report['seconds'])} of work",
        sections=[section for section in sections if section.parts],
    )


def _card(layout: RunLayout, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The data card that lies with the exported student, else one of what there is."""
    written = layout.export / "data_card.json"
    if record["state"] == "done" and written.is_file():
        found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        return found
    if not record["config"]:
        return None
    results = {name: phase["result"] for name, phase in record["phases"].items() if phase["state"] == "done"}
    return data_card(RunTraces.open(layout), results)


def _outcome(report: Mapping[str, Any], evaluations: list[dict[str, Any]]) -> Iterator[Part]:
    if report["error"]:
        yield Code(report["error"], "text")
    for split in sorted({evaluation["split"] for evaluation in evaluations}):
        of_split = [evaluation for evaluation in report["evaluations"] if evaluation["split"] == split]
        teacher = report["teacher"]
        yield Figure(_accuracy_plot(split, of_split, teacher), f"Accuracy on the {split} split, by epoch")
        yield Grid(
            [f"{split} accuracy", "right", "accuracy (95 % interval)", "with an answer", "tokens"],
            [*(_accuracy_row(item) for item in of_split), *([_teacher_row(teacher)] if teacher else [])],
        )
    phases = [[item["name"], item["state"], duration(item["seconds"]), item["did"]] for item in report["phases"]]
    yield Grid(["phase", "state", "time", ""], phases, numbers=False)


def _accuracy_plot(split: str, evaluations: list[Mapping[str, Any]], teacher: Mapping[str, Any] | None) -> str:
    student = Series(
        "student, with its 95 % interval",
        [(item["epoch"], item["rate"]) for item in evaluations],
        [(item["low"], item["high"]) for item in evaluations],
        dots=True,
    )
    levels = []
    if teacher is not None and teacher["rate"] is not None:
        levels = [Level(f"teacher ({teacher['measured']})", teacher["rate"], teacher["low"], teacher["high"])]
    words = _whole_percent
    title = f"Accuracy on the {split} split by epoch"
    return line_chart(title, [student], x_name="epoch", y_name="right", levels=levels, y_words=words)


def _whole_percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _accuracy_row(item: Mapping[str, Any]) -> list[str]:
    accuracy = Accuracy(item["correct"], item["total"])
    return [
        f"after epoch {item['epoch']}" if item["epoch"] else "before training",
        f"{accuracy.correct}/{accuracy.total}",
        str(accuracy),
        percent(item["parsed"] / accuracy.total) if accuracy.total else "–",
        f"{item['mean_tokens']:.0f}",
    ]


def _teacher_row(teacher: Mapping[str, Any]) -> list[str]:
    accuracy = Accuracy(teacher["correct"], teacher["total"])
    return [f"teacher ({teacher['measured']})", f"{accuracy.correct}/{accuracy.total}", str(accuracy), "", ""]


def _training(training: Training | None) -> Iterator[Part]:
    if training is None:
        return
    for caption, unit, lines in _CURVES:
        series = [Series(name, training.curve.points(key)) for name, key in lines]
        plot = line_chart(caption, series, x_name="optimizer step", y_name=unit)
        if plot:
            yield Figure(plot, caption)
    rows = sum(training.staleness.values())
    bars = [
        (f"{lag} version{'' if lag == 1 else 's'}", count, f"{count:,} ({percent(count / rows)})")
        for lag, count in sorted(training.staleness.items())
        if rows
    ]
    histogram = bar_chart("Prompts with live negatives by staleness", bars)
    if histogram:
        yield Figure(histogram, "Staleness: prompts with live negatives, by how many versions they lagged")
    steps = [(str(epoch), values) for epoch, values in epoch_rows(training, [key for _, key in _EPOCH_MEANS])]
    head = ["mean over the epoch", *(epoch for epoch, _ in steps)]
    lines_ = [
        [name, *(number(values[place]) for _, values in steps)]
        for place, (name, _) in enumerate(_EPOCH_MEANS)
        if any(values[place] is not None for _, values in steps)
    ]
    yield Grid(head, lines_)
    if bars:
        yield Grid(["staleness", "prompts with live negatives"], [[name, words] for name, _, words in bars])


def _data(card: Mapping[str, Any] | None) -> Iterator[Part]:
    if card is None:
        return
    epochs = card["epochs"]
    diversity = [
        Series("a prompt's live negatives", [(item["epoch"], item["live_overlap"]) for item in epochs], dots=True),
        Series("chosen and rejected", [(item["epoch"], item["pair_overlap"]) for item in epochs], dots=True),
    ]
    positives = card["traces"].get("teacher", {}).get("kept_overlap")
    level = [Level("a prompt's positives", positives, positives, positives)] if positives is not None else []
    title = "Overlap (ROUGE-L) by epoch; the lower, the more diverse"
    plot = line_chart(title, diversity, x_name="epoch", y_name="mean ROUGE-L F", levels=level)
    if plot:
        yield Figure(plot, title)
    wrong = [
        (item["epoch"], item["live"]["wrong"] / item["live"]["traces"] if item["live"].get("traces") else None)
        for item in epochs
    ]
    novel = [
        (item["epoch"], item["live"]["distinct"] / item["live"]["wrong"] if item["live"].get("wrong") else None)
        for item in epochs
    ]
    title = "The live student's traces by epoch"
    shares = [Series("wrong, of all", wrong, dots=True), Series("unlike each other, of the wrong", novel, dots=True)]
    plot = line_chart(title, shares, x_name="epoch", y_name="share", y_words=_whole_percent)
    if plot:
        yield Figure(plot, title)
    for title, note, grid in data_card_grids(card):
        yield Paragraph(f"{title}. {note}")
        yield grid


def _cost(costs: list[PhaseCost]) -> Iterator[Part]:
    if not costs:
        return
    plot = bar_chart("Time by phase", [(cost.name, cost.seconds, duration(cost.seconds)) for cost in costs])
    if plot:
        yield Figure(plot, "Time by phase")
    rows = [[cost.name, duration(cost.seconds), *_amounts(cost)] for cost in costs]
    whole = PhaseCost(
        "all",
        sum(cost.seconds for cost in costs),
        sum(cost.cpu_hours or 0.0 for cost in costs),
        sum(cost.gpu_hours or 0.0 for cost in costs),
        sum(cost.sampled or 0 for cost in costs),
        sum(cost.trained or 0 for cost in costs),
    )
    rows.append([whole.name, duration(whole.seconds), *_amounts(whole)])
    yield Grid(["phase", "time", "CPU-hours", "GPU-hours", "tokens sampled", "tokens trained"], rows)
    yield Paragraph(
        "Hours are time × the CPUs and GPUs that the phase asks Ray for, busy or not; on one machine CPUs are logical, and "
        "may be more than its cores. Tokens are the student's, with the padding that the trainer computes; of the teacher's "
        "traces too, so a bill by its own tokens differs."
    )


def _amounts(cost: PhaseCost) -> list[str]:
    return [number(value) for value in (cost.cpu_hours, cost.gpu_hours, cost.sampled, cost.trained)]


def _samples(evaluations: list[dict[str, Any]]) -> Iterator[Part]:
    tests = [evaluation for evaluation in evaluations if evaluation["split"] == "test"]
    if len(tests) < 2:
        return
    first, last = tests[0], tests[-1]
    after = {sample["prompt_id"]: sample for sample in last["samples"]}
    rows = [
        [sample["prompt"], sample["gold"], _told(sample), _told(after[sample["prompt_id"]])]
        for sample in first["samples"][:SAMPLES]
        if sample["prompt_id"] in after
    ]
    before = "before training" if first["epoch"] == 0 else f"after epoch {first['epoch']}"
    if rows:
        yield Grid(["prompt", "right answer", before, f"after epoch {last['epoch']}"], rows, numbers=False)


def _told(sample: Mapping[str, Any]) -> str:
    return f"[{sample['verdict']}]\n{sample['text'].strip()}"


def _environment(found: Mapping[str, Any] | None, record: Mapping[str, Any]) -> Iterator[Part]:
    if found is None:
        yield Grid(["", ""], [["orpo_ray", record["orpo_ray"]]], numbers=False)
        return
    rows = [["orpo_ray", found["orpo_ray"]], ["Python", found["python"]], ["platform", found["platform"]]]
    rows += [[name, version] for name, version in found["packages"].items()]
    for node in found["nodes"]:
        what = f"{node['CPU']:g} CPUs, {node['GPU']:g} GPUs"
        what += f" ({node['accelerator']})" if node["accelerator"] else ""
        rows.append([f"nodes: {node['count']}", f"{what}, {node['memory_gib']:g} GiB of memory each, as Ray counts"])
    yield Grid(["", ""], rows, numbers=False)


def _configuration(record: Mapping[str, Any]) -> Iterator[Part]:
    yield Paragraph(f"Goes on, or finds what is finished, with `{record['command']}`.")
    if record["config"]:
        yield Code(yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True), "yaml")
