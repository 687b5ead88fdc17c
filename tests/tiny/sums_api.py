"""A teacher of sums behind the fake API: right about three times out of four, in several wordings."""

import re
from typing import Any

_QUESTION = re.compile(r"What is (\d) plus (\d)\?")
_WORDINGS = (
    "We add {a} and {b} and get {sum}, so the answer is {sum}",
    "Start at {a}; count up {b} steps; that ends at {sum}. Thus the answer is {sum}",
    "Both numbers together make {sum}. Hence the answer is {sum}",
)


def sums_script(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Completion i is a function of prompt and seed + i, as a seeded engine's would be; greedy ones are right."""
    match = _QUESTION.search(body["messages"][-1]["content"])
    assert match is not None
    a, b = int(match[1]), int(match[2])
    texts = []
    for index in range(body["n"]):
        draw = (body["seed"] + index) * 2654435761 % 2**32
        wrong = body["temperature"] > 0 and draw % 4 == 0
        wording = _WORDINGS[draw // 4 % len(_WORDINGS)]
        texts.append((wording.format(a=a, b=b, sum=a + b + wrong), "stop"))
    return texts
