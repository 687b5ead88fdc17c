"""`orpo-ray doctor`."""

import json
import sys
from dataclasses import asdict

from rich.text import Text

from orpo_ray.cli.execute import console_on
from orpo_ray.config import RunConfig
from orpo_ray.doctor import Level, examine

_SIGNS = {Level.OK: ("ok     ", "green"), Level.WARNING: ("warning", "yellow"), Level.FAULT: ("FAULT  ", "red")}


def show_examination(config: RunConfig | None, *, cluster: bool, address: str | None, as_json: bool) -> None:
    """Print every finding, with its cure; exit code 1 where one is a fault."""
    console, faults = console_on(sys.stdout), 0
    findings = []
    for finding in examine(config, cluster=cluster, address=address):
        faults += finding.level is Level.FAULT
        findings.append(finding)
        if not as_json:
            word, style = _SIGNS[finding.level]
            console.print(Text.assemble((word, style), f"  {finding.check}: {finding.found}"), soft_wrap=True)
            if finding.cure:
                console.print(Text(f"         → {finding.cure}"), soft_wrap=True)
    if as_json:
        print(json.dumps({"ok": not faults, "findings": [asdict(finding) for finding in findings]}, indent=1))
    if faults:
        sys.exit(1)
