"""What Ray Train leaves behind where its controller is killed: the place of the worker group, which nobody gives back.

Train has an actor for it, which asks the dashboard whether the controller lives. A cluster of the run's own has no dashboard:
there that actor asks for ever, the place stays taken until the run ends, and the next attempt finds none.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

Table = Mapping[str, Mapping[str, Any]]
"""Placement groups as Ray tells them, by id."""

_JOB_DIGITS = 8
_CLEANER = "ray::PlacementGroupCleaner"


@contextmanager
def place_given_back(workers: int, resources: Mapping[str, float]) -> Iterator[None]:
    """Within it one worker group is placed at a time; where it ends with an error, no place of one is left taken.

    Args:
        workers: of the group.
        resources: of each, as Ray counts them.
    """
    import ray
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    before = placement_group_table()
    try:
        yield
    except Exception:
        for found in left_over(before, placement_group_table(), job, workers, resources):
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(found)))
        _end_cleaners()
        raise


def left_over(before: Table, after: Table, job: str, workers: int, resources: Mapping[str, float]) -> list[str]:
    """Ids of the job's placement groups that are new, not given back, and made as a worker group's is."""
    wanted = {kind: amount for kind, amount in resources.items() if amount}
    return [
        key
        for key, group in after.items()
        if key not in before
        and key[-_JOB_DIGITS:] == job
        and group["state"] != "REMOVED"
        and len(group["bundles"]) == workers
        and all(dict(bundle) == wanted for bundle in group["bundles"].values())
    ]


def _end_cleaners() -> None:
    """Train's own, of a controller that is gone, on a cluster that is below this process: each is an interpreter that stays."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(_CLEANER):
                process.terminate()
