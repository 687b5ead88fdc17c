"""What can be done with runs, wherever the address leads: to a Ray dashboard, or to a service of this package."""

from types import ModuleType
from typing import Any

from orpo_ray.client import jobs, operations, service_operations
from orpo_ray.client.files import What
from orpo_ray.client.operations import Configuration, Here, Submission
from orpo_ray.client.result import RunResult
from orpo_ray.client.status import RunStatus
from orpo_ray.client.steps import Steps


class Operations:
    """`operations` or `service_operations`, whichever the address takes; asked once, with the first request."""

    def __init__(self, *, is_cluster: bool | None = None) -> None:
        self._found: ModuleType | None = operations if is_cluster else None

    def submit(self, configuration: Configuration, how: Submission, here: Here | None) -> Steps[str]:
        name: str = yield from (yield from self._which()).submit(configuration, how, here)
        return name

    def runs(self) -> Steps[list[str]]:
        names: list[str] = yield from (yield from self._which()).runs()
        return names

    def find(self, identity: str) -> Steps[str]:
        name: str = yield from (yield from self._which()).find(identity)
        return name

    def status(self, identity: str) -> Steps[RunStatus]:
        now: RunStatus = yield from (yield from self._which()).status(identity)
        return now

    def wait(self, identity: str, timeout: float | None) -> Steps[RunStatus]:
        now: RunStatus = yield from (yield from self._which()).wait(identity, timeout)
        return now

    def follow(self, identity: str, *, on: bool) -> Steps[None]:
        yield from (yield from self._which()).follow(identity, on=on)

    def stop(self, identity: str) -> Steps[RunStatus]:
        now: RunStatus = yield from (yield from self._which()).stop(identity)
        return now

    def lines(self, identity: str, what: What, limit: int | None, here: Here | None) -> Steps[list[dict[str, Any]]]:
        found: list[dict[str, Any]] = yield from (yield from self._which()).lines(identity, what, limit, here)
        return found

    def result(self, identity: str, here: Here | None) -> Steps[RunResult]:
        found: RunResult = yield from (yield from self._which()).result(identity, here)
        return found

    def ray_version(self) -> Steps[str]:
        if (yield from self._which()) is service_operations:
            return (yield from service_operations.cluster_version())
        return (yield from jobs.ray_version())

    def _which(self) -> Steps[ModuleType]:
        if self._found is None:
            self._found = service_operations if (yield from service_operations.is_service()) else operations
        return self._found
