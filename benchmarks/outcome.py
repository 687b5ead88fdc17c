"""What a benchmark ends with: a table for people, JSON for programs, and the machine that it ran on."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """What a figure was measured on; other work on the machine shows in the load."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 1),
    }


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()) -> None:
    """Print a table: the first column names, the others hold figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*(f"{cell:,.3g}" if isinstance(cell, float) and cell < 100 else _plain(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def keep(result: dict[str, Any], file: Path | None) -> None:
    """Write the result to a JSON file, where one is asked for."""
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n")


def _plain(cell: Any) -> str:
    return f"{cell:,.0f}" if isinstance(cell, int | float) and not isinstance(cell, bool) else str(cell)
