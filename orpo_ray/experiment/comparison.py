"""The experiment as plain data: the table, tests between recipes, gains, costs, and what was measured by epoch."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orpo_ray.config.recipe import RECIPES, RecipeName
from orpo_ray.evaluation.accuracy import Accuracy
from orpo_ray.evaluation.paired import Estimate, Paired, holm, mean_over_seeds
from orpo_ray.experiment import paper
from orpo_ray.experiment.results import Cost, RunResult
from orpo_ray.experiment.runs import PlannedRun

STEPS: tuple[tuple[RecipeName, RecipeName, str], ...] = (
    ("zero_shot_cot", "single_cot", "one teacher trace a prompt"),
    ("single_cot", "diverse_cot", "diverse teacher traces"),
    ("diverse_cot", "off_policy", "contrast with the initial student's wrong traces"),
    ("off_policy", "mixed_policy", "half of them by the newest student"),
    ("on_policy", "mixed_policy", "half of them by the initial student"),
    ("off_policy", "on_policy", "all of them by the newest student"),
    ("teacher_negatives", "off_policy", "the student's wrong traces in place of the teacher's"),
)
"""What each component adds: from a recipe to one that differs in it alone, or nearly so."""

MEASURES: Mapping[str, str] = {
    "diversity": "diversity of a prompt's negatives (1 − ROUGE-L between two)",
    "nearness": "quality of negatives: nearness to a right trace (ROUGE-L)",
    "rejected_logp": "quality of negatives: mean token log-probability, nats",
    "live_novelty": "further wrong live traces that are no near-duplicates, share",
    "margin": "margin: log odds of chosen less rejected",
    "accuracy": "pairs whose chosen trace is preferred, share",
    "staleness_mean": "staleness of live negatives, versions",
    "phi": "φ",
    "loss": "loss",
}
"""What is drawn by epoch."""


def compare(runs: Sequence[PlannedRun], results: Mapping[str, RunResult], failed: Mapping[str, str]) -> dict[str, Any]:
    """All that is known of the experiment so far.

    Args:
        results: of the runs that are done, by name.
        failed: why others are not, by name.
    """
    table = [run for run in runs if run.swept is None]
    done = [results[run.name] for run in table if run.name in results]
    columns = list(dict.fromkeys((run.student, run.task) for run in table))
    recipes = list(dict.fromkeys(run.recipe for run in table if run.recipe is not None))
    students = list(dict.fromkeys(student for student, _ in columns))
    return {
        "runs": {
            "planned": len({run.name for run in runs}),
            "done": len(results),
            "failed": dict(failed),
            "missing": sorted({run.name for run in runs} - results.keys() - failed.keys()),
        },
        "seeds": sorted({run.seed for run in runs}),
        "columns": [{"student": student, "task": task} for student, task in columns],
        "table": [_row(recipe, columns, done) for recipe in recipes],
        "teacher": _teachers(done),
        "comparisons": _comparisons(recipes, students, done),
        "gains": _gains(recipes, students, done),
        "several_answers": _several(recipes, columns, done),
        "costs": _costs(results.values()),
        "curves": _curves(recipes, columns, done),
        "measures": _measures(recipes, columns, done),
        "sweeps": _sweeps(runs, results),
        "paper": {
            "source": "arXiv 2509.25100",
            "tasks": list(paper.TASKS),
            "accuracy": paper.ACCURACY,
            "average": paper.AVERAGE,
            "teacher_negatives": paper.TEACHER_NEGATIVES,
            "teacher_average": paper.TEACHER_AVERAGE,
        },
        "results": [_result(run, results[run.name]) for run in runs if run.name in results],
    }


def _of(done: Iterable[RunResult], recipe: RecipeName, student: str, task: str | None = None) -> list[RunResult]:
    return [
        result
        for result in done
        if result.run.recipe == recipe and result.run.student == student and task in (None, result.run.task)
    ]


def _row(recipe: RecipeName, columns: Sequence[tuple[str, str]], done: Sequence[RunResult]) -> dict[str, Any]:
    cells = []
    for student, task in columns:
        found = _of(done, recipe, student, task)
        cells.append({"student": student, "task": task} | _accuracy(found))
    averages = []
    for student in dict.fromkeys(student for student, _ in columns):
        tasks = [task for other, task in columns if other == student]
        by_seed = _whole_seeds(_of(done, recipe, student), tasks)
        values = [sum(result.accuracy for result in found) / len(found) for found in by_seed]
        averages.append({"student": student, "values": values} | _estimate(values))
    return {"recipe": recipe, "sentence": RECIPES[recipe].sentence, "cells": cells, "averages": averages}


def _accuracy(found: Sequence[RunResult]) -> dict[str, Any]:
    """Mean over seeds with Student's t interval; of a single run Wilson's, which is that of its questions alone."""
    values = [result.accuracy for result in found]
    cell: dict[str, Any] = {
        "values": values,
        "seeds": [result.run.seed for result in found],
        "correct": [result.curve[result.epoch][0] for result in found],
        "total": [result.curve[result.epoch][1] for result in found],
    } | _estimate(values)
    if len(found) == 1:
        low, high = Accuracy(cell["correct"][0], cell["total"][0]).interval
        cell |= {"low": low, "high": high, "interval": "wilson"}
    return cell


def _whole_seeds(found: Sequence[RunResult], tasks: Sequence[str]) -> list[list[RunResult]]:
    """Results of each seed that has one for every task: an average over fewer would not compare."""
    seeds: dict[int, list[RunResult]] = {}
    for result in found:
        seeds.setdefault(result.run.seed, []).append(result)
    return [results for results in seeds.values() if {result.run.task for result in results} == set(tasks)]


def _estimate(values: Sequence[float]) -> dict[str, Any]:
    """JSON knows no NaN: an unknown bound is null."""
    if not values:
        return {"mean": None, "low": None, "high": None, "interval": None}
    return _json(mean_over_seeds(values)) | {"interval": "t" if len(values) > 1 else None}


def _json(estimate: Estimate) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in asdict(estimate).items()}


def _teachers(done: Sequence[RunResult]) -> dict[str, Any]:
    tasks: dict[str, list[float]] = {}
    for result in done:
        if result.teacher is not None:
            tasks.setdefault(result.run.task, []).append(result.teacher[0] / result.teacher[1])
    return {task: _estimate(sorted(set(values))) for task, values in tasks.items()}


def _pairs(
    first: RecipeName, second: RecipeName, student: str, done: Sequence[RunResult]
) -> list[tuple[RunResult, RunResult]]:
    """Runs of two recipes on the same task and seed."""
    others = {(result.run.task, result.run.seed): result for result in _of(done, second, student)}
    return [
        (result, others[result.run.task, result.run.seed])
        for result in _of(done, first, student)
        if (result.run.task, result.run.seed) in others
    ]


def _comparisons(
    recipes: Sequence[RecipeName], students: Sequence[str], done: Sequence[RunResult]
) -> list[dict[str, Any]]:
    """Paired tests for each step between recipes that are both there; p adjusted for all of them together."""
    found: list[dict[str, Any]] = []
    values: list[float] = []
    for student in students:
        for first, second, _ in STEPS:
            pairs = _pairs(first, second, student, done)
            if first not in recipes or second not in recipes or not pairs:
                continue
            before, after = [a.right for a, _ in pairs], [b.right for _, b in pairs]
            totals = [a.curve[a.epoch][1] for a, _ in pairs]
            paired = Paired.of(before, after, totals)
            values.append(paired.mcnemar)
            found.append(
                {
                    "student": student,
                    "first": first,
                    "second": second,
                    "runs": len(pairs),
                    "questions": sum(totals),
                    "gained": sum(paired.gained),
                    "lost": sum(paired.lost),
                    "difference": _json(mean_over_seeds(paired.differences)),
                    "bootstrap": _json(paired.bootstrap()),
                    "mcnemar_p": paired.mcnemar,
                }
            )
    for comparison, adjusted in zip(found, holm(values), strict=True):
        comparison["mcnemar_p_holm"] = adjusted
    return found


def _gains(recipes: Sequence[RecipeName], students: Sequence[str], done: Sequence[RunResult]) -> list[dict[str, Any]]:
    """What each component adds, beside what it adds in the paper's averages."""
    found = []
    for first, second, what in STEPS:
        if first not in recipes or second not in recipes:
            continue
        measured = {}
        for student in students:
            differences = [b.accuracy - a.accuracy for a, b in _pairs(first, second, student, done)]
            if differences:
                measured[student] = _estimate(differences)
        printed = {
            model: round(averages[second] - averages[first], 2)
            for model, averages in paper.AVERAGE.items()
            if first in averages and second in averages
        }
        if first == "teacher_negatives":
            printed = {
                f"{model}, {task}": round(paper.ACCURACY[model][second][paper.TASKS.index(task)] - value, 2)
                for model, tasks in paper.TEACHER_NEGATIVES.items()
                for task, value in tasks.items()
            }
        found.append({"first": first, "second": second, "what": what, "measured": measured, "paper_points": printed})
    return found


def _several(
    recipes: Sequence[RecipeName], columns: Sequence[tuple[str, str]], done: Sequence[RunResult]
) -> list[dict[str, Any]]:
    """pass@k and majority@k, where they were asked for."""
    found = []
    for recipe in recipes:
        for student, task in columns:
            extras = [result.extra for result in _of(done, recipe, student, task) if result.extra]
            if extras:
                means = {name: _estimate([extra[name] for extra in extras if name in extra]) for name in extras[0]}
                found.append({"recipe": recipe, "student": student, "task": task, "measured": means})
    return found


def _costs(results: Iterable[RunResult]) -> dict[str, Any]:
    """By recipe, without what runs share; and what is shared, TEACH and SEED, in one line."""
    recipes: dict[str, Cost] = {}
    tokens: dict[str, dict[str, int]] = {}
    count: dict[str, int] = {}
    shared = Cost()
    for result in results:
        name = result.run.recipe or "as-is"
        own = sum((cost for phase, cost in result.costs.items() if phase not in ("TEACH", "SEED")), Cost())
        shared += sum((cost for phase, cost in result.costs.items() if phase in ("TEACH", "SEED")), Cost())
        recipes[name] = recipes.get(name, Cost()) + own
        count[name] = count.get(name, 0) + 1
        sums = tokens.setdefault(name, {})
        for kind, number in result.tokens.items():
            sums[kind] = sums.get(kind, 0) + number
    return {
        "recipes": {
            name: asdict(cost) | {"runs": count[name], "tokens": tokens[name]} for name, cost in recipes.items()
        },
        "shared": asdict(shared),
        "total": asdict(sum(recipes.values(), shared)),
    }


def _points(found: Sequence[RunResult], values: Callable[[RunResult], Mapping[int, float]]) -> list[dict[str, Any]]:
    """Mean over runs at each epoch."""
    series = [values(result) for result in found]
    epochs = sorted({epoch for one in series for epoch in one})
    return [{"epoch": epoch} | _estimate([one[epoch] for one in series if epoch in one]) for epoch in epochs]


def _curves(
    recipes: Sequence[RecipeName], columns: Sequence[tuple[str, str]], done: Sequence[RunResult]
) -> list[dict[str, Any]]:
    return [
        {
            "student": student,
            "task": task,
            "recipes": {
                recipe: _points(
                    _of(done, recipe, student, task),
                    lambda result: {epoch: correct / total for epoch, (correct, total) in result.curve.items()},
                )
                for recipe in recipes
            },
        }
        for student, task in columns
    ]


def _measures(
    recipes: Sequence[RecipeName], columns: Sequence[tuple[str, str]], done: Sequence[RunResult]
) -> list[dict[str, Any]]:
    return [
        {
            "student": student,
            "task": task,
            "measures": {
                measure: {
                    recipe: points
                    for recipe in recipes
                    if (points := _points(_of(done, recipe, student, task), lambda result: _measure(result, measure)))  # noqa: B023
                }
                for measure in MEASURES
            },
        }
        for student, task in columns
    ]


def _measure(result: RunResult, measure: str) -> dict[int, float]:
    if measure in ("diversity", "nearness"):
        found = {epoch: getattr(item, measure) for epoch, item in result.negatives.items()}
        return {epoch: value for epoch, value in found.items() if value is not None}
    # Without live negatives there is no staleness, and no policy to speak of.
    if measure in ("staleness_mean", "phi") and not any(item.get("rows_live") for item in result.epochs.values()):
        return {}
    return {epoch: item[measure] for epoch, item in result.epochs.items() if measure in item}


def _sweeps(runs: Sequence[PlannedRun], results: Mapping[str, RunResult]) -> list[dict[str, Any]]:
    """Accuracy over the values of each swept option, for each column."""
    axes: dict[tuple[str, str | None, str, str], dict[str, Any]] = {}
    for run in runs:
        if run.swept is None:
            continue
        key = (run.swept.option, run.recipe, run.student, run.task)
        sweep = axes.setdefault(key, {"values": [], "runs": []})
        if run.swept.value not in sweep["values"]:
            sweep["values"].append(run.swept.value)
            sweep["runs"].append([])
        if run.name in results:
            sweep["runs"][sweep["values"].index(run.swept.value)].append(results[run.name])
    return [
        {
            "option": option,
            "recipe": recipe,
            "student": student,
            "task": task,
            "points": [
                {"value": value} | _accuracy(found) for value, found in zip(sweep["values"], sweep["runs"], strict=True)
            ],
        }
        for (option, recipe, student, task), sweep in axes.items()
    ]


def _result(run: PlannedRun, result: RunResult) -> dict[str, Any]:
    """One run, for those who want to compute something else."""
    return {
        "name": run.name,
        "recipe": run.recipe,
        "task": run.task,
        "student": run.student,
        "seed": run.seed,
        "swept": asdict(run.swept) if run.swept else None,
        "epoch": result.epoch,
        "accuracy": result.accuracy,
        "curve": {str(epoch): list(counts) for epoch, counts in sorted(result.curve.items())},
        "several_answers": result.extra,
        "cost": asdict(result.cost),
        "tokens": result.tokens,
    }
