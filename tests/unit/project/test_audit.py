"""What `make audit` makes of pip-audit's reports."""

from typing import Any

import pytest
from audit import KNOWN, LOCKS, NONE_KNOWN, NOT_ASKED, ROOT, pins, verdict

SOUND: dict[str, Any] = {"name": "rich", "version": "15.0.0", "vulns": []}
SPOILT: dict[str, Any] = {
    "name": "jinja2", "version": "3.1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"], "aliases": []}],
}  # fmt: skip
UNKNOWN: dict[str, Any] = {"name": "torch", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([SOUND], NONE_KNOWN, "no known vulnerability in 1 packages"),
        ([SOUND, UNKNOWN], NONE_KNOWN, "no known vulnerability in 1 packages; not known to the database: torch"),
        ([SOUND, SPOILT, UNKNOWN], KNOWN, "jinja2 3.1.0: PYSEC-1, mended in 3.1.6"),
        ([UNKNOWN], NOT_ASKED, "the database cannot be asked: it knows none of 1 packages"),
    ],
)
def test_the_verdict(packages: list[dict[str, Any]], code: int, said: str) -> None:
    assert verdict({"dependencies": packages}) == (code, [said])


def test_a_database_that_is_out_of_reach_is_no_clean_bill() -> None:
    assert verdict("ConnectionError")[0] == NOT_ASKED


def test_the_locks_are_where_they_are_looked_for() -> None:
    for lock in LOCKS:
        pinned = pins(ROOT / lock)
        assert "ray==2.60.0" in pinned
        assert not any("===" in pin or "#" in pin for pin in pinned)
