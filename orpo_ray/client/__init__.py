"""The Python client: runs on a Ray cluster, or on one of its own, over Ray's Jobs API."""

from orpo_ray.client.blocking import Client, Run
from orpo_ray.client.errors import (
    ClusterError,
    ClusterUnreachableError,
    NotAuthorisedError,
    RefusedError,
    RunFailedError,
    RunNotFinishedError,
    UnknownRunError,
)
from orpo_ray.client.jobs import Placement
from orpo_ray.client.nonblocking import AsyncClient, AsyncRun
from orpo_ray.client.result import Evaluation, RunResult
from orpo_ray.client.status import RunState, RunStatus

__all__ = [
    "AsyncClient",
    "AsyncRun",
    "Client",
    "ClusterError",
    "ClusterUnreachableError",
    "Evaluation",
    "NotAuthorisedError",
    "Placement",
    "RefusedError",
    "Run",
    "RunFailedError",
    "RunNotFinishedError",
    "RunResult",
    "RunState",
    "RunStatus",
    "UnknownRunError",
]
