"""A teacher behind an OpenAI-compatible URL: our own under Ray Serve, or anybody's."""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orpo_ray.config.models import TeacherConfig
from orpo_ray.errors import InputError, OrpoRayError, TeacherError
from orpo_ray.tasks import Message, Row
from orpo_ray.teacher.protocol import Sample
from orpo_ray.tracking.meter import record, timed
from orpo_ray.tracking.told import tell

if TYPE_CHECKING:
    import httpx
    import openai


LONGEST_WAIT_S = 6.0
"""The client waits at least so long before a try once it has waited longer and longer: 8 s, less a quarter at most."""

NO_KEY = "none"
"""What is sent where no key is asked for: the `openai` client wants one."""


def api_key(config: TeacherConfig) -> str:
    """The key from the environment variable that the configuration names; a placeholder where it names none.

    Raises:
        InputError: the variable is not set.
    """
    if config.api_key_env is None:
        return NO_KEY
    key = os.environ.get(config.api_key_env, "")
    if not key:
        raise InputError(
            f"teacher.api_key_env: the environment variable {config.api_key_env} is not set; "
            f"put the API key into it, as `export {config.api_key_env}=…`"
        )
    return key


class ApiTeacher:
    """Chat completions through the `openai` client.

    The client itself tries again after 408, 409, 429, 5xx and broken connections, up to `retries` times: it waits as
    long as `Retry-After` asks (two minutes at most), else 0.5 s doubled each time up to 8 s, less a random quarter.
    """

    def __init__(
        self, *, base_url: str, model: str, key: str, concurrency: int, timeout_s: float, retries: int
    ) -> None:
        import openai

        self._url = base_url
        self._model = model
        self._key = "" if key == NO_KEY else key
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=key,
            timeout=timeout_s,
            max_retries=retries,
            # The client tries again by itself: only its transport sees every answer.
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [_record_response]}),
        )
        self._in_flight = asyncio.Semaphore(concurrency)
        # Some servers refuse n > 1, others ignore it; once one has refused, it is not asked again.
        self._takes_n = True

    async def sample(
        self,
        row: Row,
        messages: Sequence[Message],
        *,
        k: int,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
    ) -> list[Sample]:
        import openai

        options = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        try:
            if self._takes_n and k > 1:
                try:
                    samples = await self._ask(messages, options, n=k, seed=seed)
                except (openai.BadRequestError, openai.UnprocessableEntityError):
                    # Either n is the trouble or the prompt: one completion at a time tells which.
                    samples = await self._ask(messages, options, n=1, seed=seed)
                    self._takes_n = False
            else:
                samples = await self._ask(messages, options, n=1, seed=seed)
            missing = range(len(samples), k)
            more = await asyncio.gather(*(self._ask(messages, options, n=1, seed=seed + index) for index in missing))
        except openai.OpenAIError as error:
            # Some servers repeat what was sent; the cause's own text would then be in logs and in the run's events.
            raise self._explain(error, row) from (None if self._key and self._key in str(error) else error)
        return (samples + [sample for answer in more for sample in answer])[:k]

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, messages: Sequence[Message], options: dict[str, Any], *, n: int, seed: int) -> list[Sample]:
        async with self._in_flight:
            chat: Any = self._client.chat.completions
            began = time.monotonic()
            with timed("orpo_teacher_request_seconds"):
                answer = await chat.create(model=self._model, messages=list(messages), n=n, seed=seed, **options)
        tokens = answer.usage.completion_tokens if answer.usage else 0
        record("orpo_teacher_tokens_total", tokens)
        tell("teacher.answered", phase="teach", tokens=tokens, seconds=round(time.monotonic() - began, 3))
        choices = sorted(answer.choices or [], key=lambda choice: choice.index)
        return [Sample(choice.message.content or "", choice.finish_reason == "length") for choice in choices]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _explain(self, error: "openai.OpenAIError", row: Row) -> OrpoRayError:
        """The error for the person who runs it: is it the configuration, the prompt, or the teacher?"""
        import openai

        said = self._without_key(_first_line(error))
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return InputError(
                    f"teacher: {self._url} refuses the API key ({error.status_code}): {said}; "
                    "check the environment variable that teacher.api_key_env names"
                )
            case openai.NotFoundError():
                return InputError(
                    f"teacher: {self._url} has no chat model {self._model!r} (404): {said}; "
                    "check teacher.model and teacher.base_url, which mostly ends with /v1"
                )
            case openai.BadRequestError() | openai.UnprocessableEntityError():
                return InputError(
                    f"teacher: {self._url} refuses the prompt of row {row.id} ({error.status_code}): {said}"
                )
            case openai.APIStatusError():
                return TeacherError(
                    f"teacher: {self._url} answered {error.status_code} to row {row.id}, "
                    f"after {self._client.max_retries} retries: {said}"
                )
            case openai.APITimeoutError():
                return TeacherError(
                    f"teacher: {self._url} did not answer row {row.id} within teacher.request_timeout_s = "
                    f"{self._client.timeout:g} s, after {self._client.max_retries} retries"
                )
            case openai.APIConnectionError():
                cause = error.__cause__
                return TeacherError(
                    f"teacher: {self._url} cannot be reached, after {self._client.max_retries} retries: {cause or said}"
                )
            case _:
                return TeacherError(f"teacher: {self._url} failed on row {row.id}: {type(error).__name__}: {said}")


async def _record_response(response: "httpx.Response") -> None:
    status = response.status_code
    record("orpo_teacher_responses_total", status=str(status) if status == 429 else f"{status // 100}xx")


def _first_line(error: Exception, limit: int = 300) -> str:
    body = getattr(error, "body", None)
    text = str(body.get("message") if isinstance(body, dict) and body.get("message") else error)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + "…"
