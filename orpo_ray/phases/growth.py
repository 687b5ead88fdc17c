"""A look, now and then while an attempt trains with fewer workers or samplers, for a place for those that are missing."""

import logging
import threading
from collections.abc import Callable
from typing import Self

from orpo_ray.config import RunConfig
from orpo_ray.phases.places import Ask, Places, more_places

log = logging.getLogger(__name__)


class Growth:
    """Looks every `resources.grow_every_s` in a thread of its own, until it has found one or is left.

    Args:
        places: what the attempt has; where that is all, nothing is looked for.
        settled: whether all of them are taken. Before that, and while one starts again, its own place looks free.
        found: called once, when there is a place.
    """

    def __init__(
        self,
        config: RunConfig,
        places: Places,
        ask: Ask,
        *,
        settled: Callable[[], bool],
        found: Callable[[], None],
    ) -> None:
        self._config, self._places, self._ask = config, places, ask
        self._settled, self._found = settled, found
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if not self._places.all_of(self._config):
            # Not before: one that is never started keeps what it was to call, and with it the weight board, alive.
            self._thread = threading.Thread(target=self._look, daemon=True, name="growth")
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        try:
            while not self._over.wait(self._config.resources.grow_every_s):
                if self._settled() and more_places(self._config, self._places, self._ask):
                    self._found()
                    return
        except Exception:
            # It trains on as it is; a cluster that does not answer is found out by those who work on it.
            log.warning("no look for more places", exc_info=True)
