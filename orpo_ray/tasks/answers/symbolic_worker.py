"""The process behind `symbolic`: reads one pair of expressions a line, answers with one verdict a line.

math-verify ends a computation that runs too long by `signal.alarm`, which works on a process's main thread only: this is one.
"""

import json
import sys
from typing import TextIO

from math_verify import parse, verify
from math_verify.errors import TimeoutException


def compare(gold: str, answer: str, limit_s: int) -> dict[str, str]:
    """`{"verdict": equal | different | unreadable}`, or `{"error": what}` where math-verify could not decide."""
    try:
        sides = [
            parse(rf"\boxed{{{side}}}", fallback_mode="no_fallback", parsing_timeout=limit_s, raise_on_error=True)
            for side in (gold, answer)
        ]
        if not sides[0]:
            return {"error": f"math-verify cannot read the gold answer {gold!r}"}
        if not sides[1]:
            return {"verdict": "unreadable"}
        equal = verify(*sides, timeout_seconds=limit_s, raise_on_error=True)
        return {"verdict": "equal" if equal else "different"}
    except TimeoutException:
        return {"error": f"math-verify took over {limit_s} s on {answer!r}"}
    except Exception as error:
        return {"error": f"math-verify broke on {answer!r}: {type(error).__name__}: {error}"}


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answers until `requests` ends, as it does when the parent process is gone."""
    replies.write('{"ready": true}\n')
    replies.flush()
    for line in requests:
        replies.write(json.dumps(compare(**json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    channel = sys.stdout
    # Whatever a library prints must not end up among the replies.
    sys.stdout = sys.stderr
    serve(sys.stdin, channel)
