"""The data card in words: the same tables in the exported DATA_CARD.md and in the report."""

from collections.abc import Iterator, Mapping
from typing import Any

from orpo_ray.report.grid import Grid, number
from orpo_ray.report.wording import percent

_ORIGINS = ("live", "initial", "teacher", "none")


def data_card_markdown(card: Mapping[str, Any]) -> str:
    """The whole card."""
    parts = [f"# Data card of {card['name']}\n"]
    parts += [f"## {title}\n\n{note}\n\n{grid.markdown()}" for title, note, grid in data_card_grids(card)]
    return "\n".join(parts)


def data_card_grids(card: Mapping[str, Any]) -> Iterator[tuple[str, str, Grid]]:
    """Title, a sentence, and table of each part."""
    known = [line for line in _task(card) if line[1]]
    yield "Task and models", "Where prompts and traces come from.", Grid(["", ""], known, numbers=False)
    if card["teachers"]:
        head = ["teacher", "traces a prompt", "traces", "right", "positives", "share of positives"]
        yield "Teachers", "Whose right traces became positives.", Grid(head, list(_teachers(card["teachers"])))
    if card["traces"]:
        yield (
            "Stored traces",
            "`teacher`: kept are right traces unlike each other, the chosen ones. `initial`: of the student before training, "
            "kept are the wrong ones. Lengths are in tokens of the student; overlap is ROUGE-L F, the mean over a prompt's "
            f"kept traces two by two, then over {_read(card)}.",
            Grid(["", *card["traces"]], list(_stored(list(card["traces"].values())))),
        )
    if card["epochs"]:
        yield (
            "Trained pairs by epoch",
            f"Verdicts and overlaps are over {_read(card)} of each epoch.",
            Grid(["epoch", *(str(epoch["epoch"]) for epoch in card["epochs"])], list(_epochs(card["epochs"]))),
        )


def _read(card: Mapping[str, Any]) -> str:
    most, there = card["read"]["prompts"], [source["prompts"] for source in card["traces"].values()]
    return f"about {most:,} prompts, evenly taken," if max(there, default=0) >= 2 * most else "all prompts"


def _task(card: Mapping[str, Any]) -> Iterator[list[str]]:
    task, models = card["task"], card["models"]
    yield ["task", task["name"]]
    yield ["rows from", task["origin"] or "a task of the user's own"]
    yield ["read from", ", ".join(task["files"])]
    yield ["licence of the data set", task["licence"] or "not known"]
    for split, rows in task["rows"].items():
        yield [f"{split} prompts", f"{rows['prompts']:,}, fingerprint {rows['fingerprint']}"]
    for who, model in models.items():
        yield [who, f"{model['name']}, licence {model['licence'] or 'not known'}"]
    for source, stored in card["traces"].items():
        options = ", ".join(f"{option} {value}" for option, value in stored["sampling"].items())
        yield [f"{source} traces", f"fingerprint {stored['key']}" + (f"; {options}" if options else "")]


def _teachers(teachers: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    for one in teachers:
        counts = [number(one[name]) for name in ("k", "traces", "right", "positives")]
        yield [one["teacher"], *counts, percent(one["share_of_positives"])]


def _stored(cards: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    yield ["prompts", *(number(card["prompts"]) for card in cards)]
    yield ["traces", *(number(card["traces"]) for card in cards)]
    for name in ("right", "wrong", "unparsed", "truncated", "near_duplicates", "kept"):
        cells = [f"{number(card[name])} ({percent(card['shares'][name])})" for card in cards]
        yield [name.replace("_", "-"), *cells]
    yield ["prompts without a kept one", *(number(card["prompts_without_kept"]) for card in cards)]
    for name, key in (("tokens", "tokens"), ("tokens of kept ones", "kept_tokens")):
        yield [f"{name}: mean, median, 95 %, most", *(_lengths(card[key]) for card in cards)]
    yield ["overlap of kept ones", *(number(card["kept_overlap"]) for card in cards)]


def _epochs(epochs: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    yield ["prompts", *(number(epoch["prompts"]) for epoch in epochs)]
    yield ["pairs", *(number(epoch["pairs"]) for epoch in epochs)]
    for origin in _ORIGINS:
        if any(epoch["by_origin"].get(origin) for epoch in epochs):
            cells = [number(epoch["by_origin"].get(origin, 0)) for epoch in epochs]
            yield [f"prompts with negatives: {'none (SFT)' if origin == 'none' else origin}", *cells]
    yield ["live traces sampled", *(number(epoch["live"].get("traces", 0)) for epoch in epochs)]
    yield ["of them wrong", *(_share(epoch["live"], "wrong", "traces") for epoch in epochs)]
    yield ["of the wrong ones unlike each other", *(_share(epoch["live"], "distinct", "wrong") for epoch in epochs)]
    for verdict in ("wrong", "unparsed", "truncated", "not known"):
        if any(epoch["rejected_verdicts"].get(verdict) for epoch in epochs):
            yield [f"rejected: {verdict}", *(number(epoch["rejected_verdicts"].get(verdict, 0)) for epoch in epochs)]
    for side in ("chosen", "rejected"):
        cells = [_lengths(epoch[f"{side}_tokens"]) for epoch in epochs]
        yield [f"tokens of {side}: mean, median, 95 %, most", *cells]
    yield ["overlap of a prompt's live negatives", *(number(epoch["live_overlap"]) for epoch in epochs)]
    yield ["overlap of chosen and rejected", *(number(epoch["pair_overlap"]) for epoch in epochs)]


def _lengths(lengths: Mapping[str, float] | None) -> str:
    return ", ".join(number(lengths[name]) for name in ("mean", "median", "p95", "max")) if lengths else "–"


def _share(counts: Mapping[str, int], part: str, whole: str) -> str:
    return percent(counts[part] / counts[whole]) if counts.get(whole) else "–"
