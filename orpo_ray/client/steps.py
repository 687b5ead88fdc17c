"""What the client does, told apart from how it waits: operations are generators, and two small drivers take their steps.

An operation yields what it needs done, a request or a pause, and is sent the outcome. `Blocking` does the steps one
after another, `Awaiting` inside an event loop; so `Client` and `AsyncClient` share every line that decides something.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from orpo_ray.client.errors import ClusterUnreachableError

T = TypeVar("T")

REQUEST_S = 60.0
"""Limit of one request, in seconds: a job that is submitted while nodes start takes a while to be answered."""
CONNECT_S = 10.0


@dataclass(frozen=True)
class Request:
    """An HTTP request; its outcome is an `Answer`."""

    method: str
    path: str
    json: Mapping[str, Any] | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    text: str


@dataclass(frozen=True)
class Sleep:
    """A pause; its outcome is None."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that blocks, as reading files; its outcome is what `do` returns."""

    do: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """A piece of a stream, handed to whoever iterates; its outcome is None."""

    text: str


Step = Request | Sleep | Work | Emit
Steps = Generator[Step, Any, T]


class Blocking:
    """Takes the steps of operations one after another."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._url = base_url
        self._http = httpx.Client(base_url=base_url, headers=dict(headers), timeout=_TIMEOUT)

    def finish(self, steps: Steps[T]) -> T:
        """The operation's result."""
        outcome: Any = None
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._do(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as ended:
            result: T = ended.value
            return result

    def stream(self, steps: Steps[None]) -> Iterator[str]:
        """What the operation emits."""
        outcome: Any = None
        try:
            step = next(steps)
            while True:
                if isinstance(step, Emit):
                    yield step.text
                    outcome = None
                else:
                    outcome = self._do(step)
                step = steps.send(outcome)
        except StopIteration:
            return

    def close(self) -> None:
        self._http.close()

    def _do(self, step: Step) -> Any:
        match step:
            case Request(method, path, json, content):
                try:
                    answer = self._http.request(method, path, json=json, content=content)
                except httpx.HTTPError as error:
                    raise _unreachable(self._url, error) from error
                return Answer(answer.status_code, answer.text)
            case Sleep(seconds):
                time.sleep(seconds)
                return None
            case Work(do):
                return do()
            case Emit():
                raise TypeError("an operation that emits is streamed, not finished")


class Awaiting:
    """Takes the steps of operations inside an event loop; what blocks is done in a thread."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._url = base_url
        self._http = httpx.AsyncClient(base_url=base_url, headers=dict(headers), timeout=_TIMEOUT)

    async def finish(self, steps: Steps[T]) -> T:
        """The operation's result."""
        outcome: Any = None
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._do(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as ended:
            result: T = ended.value
            return result

    async def stream(self, steps: Steps[None]) -> AsyncIterator[str]:
        """What the operation emits."""
        outcome: Any = None
        try:
            step = next(steps)
            while True:
                if isinstance(step, Emit):
                    yield step.text
                    outcome = None
                else:
                    outcome = await self._do(step)
                step = steps.send(outcome)
        except StopIteration:
            return

    async def close(self) -> None:
        await self._http.aclose()

    async def _do(self, step: Step) -> Any:
        match step:
            case Request(method, path, json, content):
                try:
                    answer = await self._http.request(method, path, json=json, content=content)
                except httpx.HTTPError as error:
                    raise _unreachable(self._url, error) from error
                return Answer(answer.status_code, answer.text)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
                return None
            case Work(do):
                return await asyncio.to_thread(do)
            case Emit():
                raise TypeError("an operation that emits is streamed, not finished")


_TIMEOUT = httpx.Timeout(REQUEST_S, connect=CONNECT_S)


def _unreachable(url: str, error: httpx.HTTPError) -> ClusterUnreachableError:
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        said = f"no answer within {CONNECT_S if isinstance(error, httpx.ConnectTimeout) else REQUEST_S:g} s"
    return ClusterUnreachableError(
        f"no Ray cluster answers at {url} ({said}); give its dashboard's address, as http://HEAD:8265, by --address or "
        "RAY_API_SERVER_ADDRESS, and see that its port is reached from here"
    )
