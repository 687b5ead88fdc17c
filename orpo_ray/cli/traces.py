"""`orpo-ray traces`."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from orpo_ray.cli.execute import console_on
from orpo_ray.errors import InputError
from orpo_ray.report.browse import SOURCES, PairRow, RunTraces, TraceRow
from orpo_ray.report.filters import Filters, Range
from orpo_ray.report.rows_file import write_rows
from orpo_ray.report.rows_text import as_text, pair_block, trace_block
from orpo_ray.report.show import find_run

_CHOICES = {"source": (*SOURCES, "none"), "verdict": ("right", "wrong", "unparsed")}


def trace_filters(given: Mapping[str, Any], ranges: Mapping[str, str | None], search: str | None) -> Filters:
    """The filters that options of the command line ask for.

    Raises:
        InputError: a word that an option does not know, or a range that is none.
    """
    for name, choices in _CHOICES.items():
        if given[name] is not None and given[name] not in choices:
            raise InputError(f"--{name} {given[name]}: take {', '.join(choices)}")
    read = {name: Range.parse(f"--{name}", text) for name, text in ranges.items() if text is not None}
    options: dict[str, Any] = {**given, **read, "search": search}
    return Filters(**options)


def show_traces(
    run: str, storage: Path, filters: Filters, *, pairs: bool, limit: int | None, as_json: bool, export: Path | None
) -> None:
    """Print or export what `filters` leaves of a run's traces, or of its pairs.

    Raises:
        InputError: there is no such run, its traces are gone, or the file cannot be written.
    """
    opened = RunTraces.open(find_run(run, storage))
    rows = islice(_rows(opened, filters, pairs=pairs), limit)
    if export is not None:
        count = write_rows(export, PairRow if pairs else TraceRow, rows)
        print(f"{export}: {count:,} {'pairs' if pairs else 'traces'}")
    elif as_json:
        for row in rows:
            print(json.dumps(asdict(row), ensure_ascii=False))
    else:
        _print(rows)


def _rows(opened: RunTraces, filters: Filters, *, pairs: bool) -> Iterator[TraceRow | PairRow]:
    if pairs:
        rows: Iterator[TraceRow | PairRow] = opened.pairs()
    else:
        # An epoch, as a live trace has one, leaves the stored ones out without reading them.
        wanted = [source for source in SOURCES if filters.source in (None, source)]
        rows = opened.traces([source for source in wanted if filters.epoch is None or source == "live"])
    return (row for row in rows if filters.match(row))


def _print(rows: Iterator[TraceRow | PairRow]) -> None:
    console = console_on(sys.stdout)
    blocks = _blocks(rows, console)
    if console.is_terminal:
        # A pager reads as far as it is scrolled, and so do we.
        click.echo_via_pager(blocks)
        return
    for block in blocks:
        sys.stdout.write(block)


def _blocks(rows: Iterator[TraceRow | PairRow], console: Console) -> Iterator[str]:
    none = True
    for row in rows:
        none = False
        yield as_text(pair_block(row) if isinstance(row, PairRow) else trace_block(row), console)
    if none:
        yield "nothing fits: the run has no such traces, or not yet\n"
