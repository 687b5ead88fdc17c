"""All checks, in the order in which a person mends what they find."""

from collections.abc import Iterator
from pathlib import Path

from orpo_ray.config import RunConfig
from orpo_ray.doctor.finding import Finding
from orpo_ray.doctor.machine import check_machine
from orpo_ray.doctor.packages import check_packages
from orpo_ray.doctor.reach import check_cluster, check_mirror, check_storage, check_teacher, check_token


def examine(config: RunConfig | None = None, *, cluster: bool = False, address: str | None = None) -> Iterator[Finding]:
    """Look at everything.

    Args:
        config: also at what this run asks for: its storage, its mirror, its teacher, its GPUs.
        cluster: also at the Ray cluster at `address`, or where the client would look for one.

    Raises:
        InputError: the address is none of a dashboard.
    """
    yield from check_packages()
    yield from check_machine(config)
    yield check_token()
    yield check_storage(Path(config.storage.path if config else "runs"))
    if config is not None and config.storage.mirror is not None:
        yield check_mirror(config.storage.mirror)
    for teacher in config.teachers if config else []:
        yield check_teacher(teacher)
    if cluster:
        yield from check_cluster(address)
