"""The client for event loops: `Client`, with `await`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from orpo_ray.client import operations
from orpo_ray.client.address import dashboard_address, find_token
from orpo_ray.client.either import Operations
from orpo_ray.client.files import What
from orpo_ray.client.jobs import Placement
from orpo_ray.client.local import LocalCluster
from orpo_ray.client.operations import Configuration, Submission
from orpo_ray.client.result import RunResult
from orpo_ray.client.status import RunStatus
from orpo_ray.client.steps import Awaiting

if TYPE_CHECKING:
    from orpo_ray.traces.record import Trace


class AsyncClient:
    """`Client` for an event loop: the same arguments, results and errors.

    async with orpo_ray.AsyncClient() as client:
        run = await client.submit("run.yaml")
        async for text in run.logs(follow=True):
            print(text, end="")
    """

    def __init__(self, address: str | None = None, token: str | None = None) -> None:
        self.address = dashboard_address(address)
        found = find_token(token, self.address)
        self._http = Awaiting(self.address, {"Authorization": f"Bearer {found}"} if found else {})
        self._operations = Operations()
        self._cluster: LocalCluster | None = None

    @classmethod
    async def local(cls, cpus: int | None = None) -> "AsyncClient":
        """As `Client.local`."""
        cluster = await asyncio.to_thread(LocalCluster, cpus)
        client = cls(cluster.address, cluster.token)
        client._cluster, client._operations = cluster, Operations(is_cluster=True)
        return client

    async def submit(
        self,
        config: Configuration,
        *,
        fresh: bool = False,
        driver: Placement | None = None,
        working_dir: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> "AsyncRun":
        """As `Client.submit`."""
        how = Submission(fresh, driver, Path(working_dir) if working_dir else None, env)
        return AsyncRun(self, await self._http.finish(self._operations.submit(config, how, self._here)))

    async def runs(self) -> "list[AsyncRun]":
        """As `Client.runs`."""
        return [AsyncRun(self, identity) for identity in await self._http.finish(self._operations.runs())]

    async def run(self, id: str) -> "AsyncRun":
        """As `Client.run`."""
        return AsyncRun(self, await self._http.finish(self._operations.find(id)))

    async def ray_version(self) -> str:
        """As `Client.ray_version`."""
        return await self._http.finish(self._operations.ray_version())

    async def close(self) -> None:
        """As `Client.close`."""
        await self._http.close()
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.close)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.address!r})"

    @property
    def _here(self) -> operations.Here | None:
        return None if self._cluster is None else self._cluster.here


class AsyncRun:
    """`Run` for an event loop: the same arguments, results and errors.

    Attributes:
        id: of its job.
    """

    def __init__(self, client: AsyncClient, id: str) -> None:
        self._client, self.id = client, id
        self._http, self._operations = client._http, client._operations

    async def status(self) -> RunStatus:
        """As `Run.status`."""
        return await self._http.finish(self._operations.status(self.id))

    async def wait(self, timeout: float | None = None) -> RunStatus:
        """As `Run.wait`."""
        return await self._http.finish(self._operations.wait(self.id, timeout))

    def logs(self, follow: bool = False) -> AsyncIterator[str]:
        """As `Run.logs`."""
        return self._http.stream(self._operations.follow(self.id, on=follow))

    async def metrics(self) -> list[dict[str, Any]]:
        """As `Run.metrics`."""
        return await self._lines(What.METRICS)

    async def events(self) -> list[dict[str, Any]]:
        """As `Run.events`."""
        return await self._lines(What.EVENTS)

    async def traces(
        self, source: Literal["teacher", "student"] = "teacher", limit: int | None = None
    ) -> "list[Trace]":
        """As `Run.traces`."""
        from orpo_ray.traces.record import Trace

        return [Trace(**line) for line in await self._lines(What(f"{source}-traces"), limit)]

    async def stop(self) -> RunStatus:
        """As `Run.stop`."""
        return await self._http.finish(self._operations.stop(self.id))

    async def result(self) -> RunResult:
        """As `Run.result`."""
        return await self._http.finish(self._operations.result(self.id, self._client._here))

    def __repr__(self) -> str:
        return f"AsyncRun({self.id!r})"

    async def _lines(self, what: What, limit: int | None = None) -> list[dict[str, Any]]:
        return await self._http.finish(self._operations.lines(self.id, what, limit, self._client._here))
