"""Files of JSON lines that may grow, page by page. A place in one is a byte offset: nothing before it is read again."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Page:
    """Some lines.

    Attributes:
        lines: JSON as it stands in the file, without the newline. Whoever passes it on need not parse it.
        places: the offset behind each line.
        next: the offset behind the last line that was read.
        more: whether a whole line stands behind it.
    """

    lines: list[bytes]
    places: list[int]
    next: int
    more: bool

    def json(self) -> bytes:
        """As `schemas.Lines`."""
        rest = f'],"next":{self.next},"more":{str(self.more).lower()}}}'
        return b"".join([b'{"items":[', b",".join(self.lines), rest.encode()])


def read_page(file: Path, after: int, limit: int) -> Page:
    """At most `limit` whole lines from the byte offset `after` on; none where there is no such file yet.

    An offset past the end is of a file that was cut since, as a run does with lines of a dead attempt: it begins anew.
    """
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        return Page([], [], 0, more=False)
    lines: list[bytes] = []
    places: list[int] = []
    with opened:
        if after > opened.seek(0, 2):
            after = 0
        at = opened.seek(after)
        for line in opened:
            if not line.endswith(b"\n"):  # still in the writing
                break
            if len(lines) == limit:
                return Page(lines, places, at, more=True)
            at += len(line)
            lines.append(line[:-1])
            places.append(at)
    return Page(lines, places, at, more=False)


def last_lines(file: Path, size: int = 64 << 10, kinds: Collection[str] = ()) -> list[dict[str, Any]]:
    """The whole lines among the last `size` bytes.

    Args:
        kinds: only those of these kinds; all where there is none.
    """
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
    whole = lines[(begin > 0) : -1]
    if not kinds:
        return [json.loads(line) for line in whole]
    # Looking for a word costs less than parsing; what only looks alike goes once it is parsed.
    words = [json.dumps(kind).encode() for kind in kinds]
    likely = (json.loads(line) for line in whole if any(word in line for word in words))
    return [line for line in likely if line["kind"] in kinds]
