"""One line of `orpo-ray doctor`."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`FAULT` is what keeps a run from working, or leaves a door open; `WARNING` what may."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what helps.

    Attributes:
        cure: what to do; empty where nothing is to be done.
    """

    check: str
    level: Level
    found: str
    cure: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warning(check: str, found: str, cure: str) -> Finding:
    return Finding(check, Level.WARNING, found, cure)


def fault(check: str, found: str, cure: str) -> Finding:
    return Finding(check, Level.FAULT, found, cure)
