"""`orpo-ray show`."""

import json
import sys
from pathlib import Path

from orpo_ray.cli.execute import console_on
from orpo_ray.controller.lock import lock_holder
from orpo_ray.report.show import committed_ledger, find_run, run_report
from orpo_ray.report.table import print_report


def show_run(run: str, storage: Path, *, as_json: bool, ledger: bool) -> None:
    """Print a run's report, as text or JSON, or its ledger's lines.

    Raises:
        InputError: there is no such run.
    """
    layout = find_run(run, storage)
    if ledger:
        for line in committed_ledger(layout.ledger):
            print(json.dumps(line, ensure_ascii=False))
        return
    report = run_report(layout, alive=lock_holder(layout.lock) is not None)
    if as_json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        print_report(console_on(sys.stdout), report, files=True)
