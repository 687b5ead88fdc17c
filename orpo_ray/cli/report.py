"""`orpo-ray report`."""

import sys
from pathlib import Path

from orpo_ray.controller.lock import lock_holder
from orpo_ray.errors import InputError
from orpo_ray.report.document import to_html, to_markdown
from orpo_ray.report.full import full_report
from orpo_ray.report.show import find_run
from orpo_ray.report.wording import from_here


def write_report(run: str, storage: Path, *, markdown: bool, output: Path | None) -> None:
    """Write a run's report beside the run, or to `output`; `-` is the standard output.

    Raises:
        InputError: there is no such run, its files cannot be read, or the report cannot be written.
    """
    layout = find_run(run, storage)
    document = full_report(layout, alive=lock_holder(layout.lock) is not None)
    text = to_markdown(document) if markdown else to_html(document)
    if output == Path("-"):
        sys.stdout.write(text)
        return
    file = output or layout.run / ("report.md" if markdown else "report.html")
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {file}: cannot be written: {error.strerror}") from None
    print(from_here(file))
