"""How soon those who look along look again: the more they are, the more seldom, so that a run is not slowed by being watched."""

import time
from collections.abc import Callable

SOONEST_S = 2.0
"""A reader who is alone looks again after so many seconds."""
LOOKS_PER_S = 2.0
"""All readers together look so often, at most: a look takes 1 ms of a core behind HAProxy, 6 to 18 behind Serve's own proxy."""
LATEST_S = 60.0
"""Nobody is told to wait longer, whatever others ask for."""


class Pace:
    """Gives each look a moment of its own for the next one, `SOONEST_S` from now or behind all that were given before.

    Fifty readers then look every 25 s each. Whoever does not come back leaves a gap, until its moment is past.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._given = clock, float("-inf")

    def again_s(self) -> float:
        """Seconds from now to this reader's next look."""
        now = self._clock()
        self._given = min(max(now + SOONEST_S, self._given + 1 / LOOKS_PER_S), now + LATEST_S)
        return round(self._given - now, 3)
