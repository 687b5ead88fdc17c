"""Known vulnerabilities of what the locks pin, by pip-audit: `make audit`.

Exit code 0 where none is known, 1 where one is, 3 where the database cannot be asked from here, so that nothing is known.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements/cpu.lock", "requirements/cuda.lock")
NONE_KNOWN, KNOWN, NOT_ASKED = 0, 1, 3


def pins(lock: Path) -> list[str]:
    """A lock's pins, as pip-audit reads them: it does not know `===`."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [line.replace("===", "==") for line in lines if line and not line.startswith("#")]


def audit(pip_audit: Path, pinned: Sequence[str]) -> Mapping[str, Any] | str:
    """pip-audit's report on pins, or what it said where it gave none."""
    # Every package is pinned, so nothing is resolved or installed.
    command = [str(pip_audit), "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pinned))
        file.flush()
        ended = subprocess.run([*command, "--requirement", file.name], capture_output=True, text=True)
    try:
        report: Mapping[str, Any] = json.loads(ended.stdout)
    except ValueError:
        return (ended.stderr.strip().splitlines() or ["nothing"])[-1]
    return report


def verdict(report: Mapping[str, Any] | str) -> tuple[int, list[str]]:
    """Exit code, and lines for a person.

    A package that the database does not know (as a build of a mirror's own) is named, and is no fault; where it knows
    none at all, it was not asked.
    """
    if isinstance(report, str):
        return NOT_ASKED, [f"the database cannot be asked: {report}"]
    packages: Sequence[Mapping[str, Any]] = report["dependencies"]
    known = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no release'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    skipped = [str(package["name"]) for package in packages if "skip_reason" in package]
    if known:
        return KNOWN, known
    if len(skipped) == len(packages):
        return NOT_ASKED, [f"the database cannot be asked: it knows none of {len(packages)} packages"]
    without = f"; not known to the database: {', '.join(skipped)}" if skipped else ""
    return NONE_KNOWN, [f"no known vulnerability in {len(packages) - len(skipped)} packages{without}"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Known vulnerabilities of what the locks pin.")
    parser.add_argument("pip_audit", type=Path, help="the program")
    pip_audit = parser.parse_args().pip_audit
    codes = []
    for lock in LOCKS:
        pinned = pins(ROOT / lock)
        # A database that does not know the first package is not asked about two hundred more.
        code, lines = verdict(audit(pip_audit, pinned[:1]))
        if code != NOT_ASKED:
            code, lines = verdict(audit(pip_audit, pinned))
        codes.append(code)
        for line in lines:
            print(f"{lock}: {line}", file=sys.stderr if code else sys.stdout)
    return KNOWN if KNOWN in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
