"""Files of JSON lines that may grow, page by page. A place in one is a byte offset: nothing before it is read again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Page:
    """Some lines.

    Attributes:
        places: the offset behind each item.
        next: the offset behind the last line that was read.
        more: whether a whole line stands behind it.
    """

    items: list[dict[str, Any]]
    places: list[int]
    next: int
    more: bool


def read_page(file: Path, after: int, limit: int) -> Page:
    """At most `limit` whole lines from the byte offset `after` on; none where there is no such file yet.

    An offset past the end is of a file that was cut since, as a run does with lines of a dead attempt: it begins anew.
    """
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        return Page([], [], 0, more=False)
    items: list[dict[str, Any]] = []
    places: list[int] = []
    with opened:
        if after > opened.seek(0, 2):
            after = 0
        at = opened.seek(after)
        for line in opened:
            if not line.endswith(b"\n"):  # still in the writing
                break
            if len(items) == limit:
                return Page(items, places, at, more=True)
            at += len(line)
            items.append(json.loads(line))
            places.append(at)
    return Page(items, places, at, more=False)


def last_lines(file: Path, size: int = 64 << 10) -> list[dict[str, Any]]:
    """The whole lines among the last `size` bytes."""
    try:
        with file.open("rb") as opened:
            end = opened.seek(0, 2)
            begin = max(0, end - size)
            opened.seek(begin)
            text = opened.read()
    except FileNotFoundError:
        return []
    lines = text.split(b"\n")
    # The first is a part of a line unless the file begins with it, the last what is still in the writing.
    return [json.loads(line) for line in lines[(begin > 0) : -1]]
