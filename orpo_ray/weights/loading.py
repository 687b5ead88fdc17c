"""From a published version to an engine that has it: looked at before, and asked afterwards."""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from orpo_ray.errors import OrpoRayError, WaitTimeout
from orpo_ray.weights.link import is_link
from orpo_ray.weights.probe import Probe, probe_of
from orpo_ray.weights.published import IncompleteVersionError, check_published
from orpo_ray.weights.shelf import Version

log = logging.getLogger(__name__)

_LOADS = 2
_LOOK_S = 0.1


class WrongWeightsError(OrpoRayError):
    """An engine does not answer as the student that it was given; the message says by how much."""


class LoadingEngine(Protocol):
    """What is asked of an engine; nothing else may run on it meanwhile."""

    @property
    def dtype(self) -> str:
        """Precision of its weights, as `bfloat16`."""

    async def reload(self, directory: str, label: str, timeout_s: float) -> None:
        """Replace the weights by those in `directory`."""

    async def receive(self, address: str, label: str, timeout_s: float) -> None:
        """Replace the weights by those that are sent at `address`, a link's."""

    async def score(self, prompt: Sequence[int], trace: Sequence[int]) -> list[float]:
        """Log-probability of each token of the trace, nats."""


async def load_version(engine: LoadingEngine, version: Version, limit_s: float) -> None:
    """Load a version that is whole, and see that the engine has it.

    Args:
        limit_s: limit of each reload, and of the wait for a version that is still on its way here.

    Raises:
        IncompleteVersionError: the version is not whole, or went while it was loaded.
        WrongWeightsError: loaded twice, the engine still answers as another student.
        WaitTimeout: a reload or the check took longer than the limit.
    """
    for _ in range(_LOADS):
        directory, facts = await _load(engine, version, limit_s)
        probe = probe_of(facts)
        if probe is None:
            return
        gap, tolerance = probe.gap(await _score(engine, probe, version, limit_s)), probe.tolerance(engine.dtype)
        if gap <= tolerance:  # a NaN is not
            return
    raise WrongWeightsError(
        f"version {version.number} was loaded {_LOADS} times, at last from {directory}, and the engine still gives the "
        f"probe's tokens a log-probability {gap:.3g} nats from the trainer's, where rounding explains {tolerance:g}"
    )


async def stored(version: Version, limit_s: float) -> dict[str, Any]:
    """The manifest of the version on the storage; one that is still on its way there is waited for.

    Raises:
        IncompleteVersionError: it is not whole, or not there.
    """
    if version.number == 0:  # the initial student was not published by us
        return {}
    directory = Path(version.path)
    if version.copy is not None and not is_link(version.copy):
        end = time.monotonic() + limit_s
        while not directory.exists() and time.monotonic() < end:
            await asyncio.sleep(_LOOK_S)
    return await asyncio.to_thread(check_published, directory)


async def _load(engine: LoadingEngine, version: Version, limit_s: float) -> tuple[str, dict[str, Any]]:
    """Load it once, from the nearest copy that there is; where it came from, and its manifest."""
    label, copy = str(version.number), version.copy
    if copy is not None and is_link(copy):
        sent = await stored(version, limit_s)
        try:
            await engine.receive(copy, label, limit_s)
            return copy, sent
        except Exception as error:
            # It was replaced by the next version meanwhile, or its sender is gone; the storage has both.
            log.warning("version %d is loaded from the storage: %s", version.number, error)
    elif copy is not None and (facts := await asyncio.to_thread(_whole, Path(copy))) is not None:
        try:
            await engine.reload(copy, label, limit_s)
            return copy, facts
        except Exception:
            if Path(copy).exists():
                raise
            # The next version has taken its place meanwhile; the storage has both.
    facts = await stored(version, limit_s)
    try:
        await engine.reload(version.path, label, limit_s)
    except Exception:
        await stored(version, limit_s)  # it may have gone between the look and the load
        raise
    return version.path, facts


def _whole(directory: Path) -> dict[str, Any] | None:
    try:
        return check_published(directory)
    except IncompleteVersionError:
        return None


async def _score(engine: LoadingEngine, probe: Probe, version: Version, limit_s: float) -> list[float]:
    try:
        async with asyncio.timeout(limit_s):
            return await engine.score(probe.prompt, probe.trace)
    except TimeoutError:
        raise WaitTimeout(
            f"limits.reload_s: the check of version {version.number} was not answered within {limit_s:g} s"
        ) from None
