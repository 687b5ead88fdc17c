"""A cluster that takes every job and does none. A fake, for tests of the service alone."""

from dataclasses import dataclass, field

from orpo_ray.client import ClusterUnreachableError, RefusedError, RunState
from orpo_ray.config import RunConfig


@dataclass
class FakeJobs:
    """Attributes:
    jobs: state by (run's name, storage); the job of a run is `job-<name>`.
    """

    reached: bool = True
    jobs: dict[tuple[str, str], RunState] = field(default_factory=dict)
    submitted: list[tuple[RunConfig, bool]] = field(default_factory=list)

    async def submit(self, config: RunConfig, fresh: bool) -> str:
        key = (config.name, config.storage.path)
        if key in self.jobs and not self.jobs[key].over:
            raise RefusedError(f"{config.name}: job-{config.name} works on this run already")
        self.submitted.append((config, fresh))
        self.jobs[key] = RunState.PENDING
        return f"job-{config.name}"

    async def newest_of(self, name: str, storage: str) -> tuple[str, RunState] | None:
        await self.ray_version()
        state = self.jobs.get((name, storage))
        return None if state is None else (f"job-{name}", state)

    async def message(self, job: str) -> str:
        return f"{job} was refused"

    async def stop(self, job: str) -> None:
        for key in self.jobs:
            if job == f"job-{key[0]}":
                self.jobs[key] = RunState.STOPPED

    async def ray_version(self) -> str:
        if not self.reached:
            raise ClusterUnreachableError("no Ray cluster answers at http://nowhere:8265")
        return "2.0"
