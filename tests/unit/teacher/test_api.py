"""The API teacher against a real HTTP server: what it asks for, what it tries again, and what it says when it gives up."""

import asyncio
import time
import traceback
from collections.abc import Coroutine
from typing import Any

import pytest

from orpo_ray.config.models import TeacherConfig
from orpo_ray.errors import InputError, OrpoRayError, TeacherError
from orpo_ray.tasks import Row
from orpo_ray.teacher.api import ApiTeacher, api_key
from orpo_ray.teacher.protocol import Sample
from tests.tiny.api import FakeApi, Refusal, fake_api

ROW = Row("row-7", "train", {})
MESSAGES = [{"role": "user", "content": "What is 2 + 3?"}]


def teacher(base_url: str, *, retries: int = 0, concurrency: int = 8, timeout_s: float = 10) -> ApiTeacher:
    return ApiTeacher(
        base_url=base_url, model="big", key="secret", concurrency=concurrency, timeout_s=timeout_s, retries=retries
    )


def ask(api: FakeApi | str, *, k: int = 2, seed: int = 5, **options: Any) -> list[Sample]:
    async def once() -> list[Sample]:
        one = teacher(api if isinstance(api, str) else api.base_url, **options)
        try:
            return await one.sample(
                ROW,
                MESSAGES,
                k=k,
                temperature=0.8,
                top_p=0.9,
                max_tokens=32,
                seed=seed,  # type: ignore[arg-type]
            )
        finally:
            await one.close()

    return asyncio.run(once())


def numbered(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Completion i of seed s says s + i, as vLLM seeds them."""
    return [(str(body["seed"] + index), "stop") for index in range(body["n"])]


def test_one_request_asks_for_all_k_traces() -> None:
    with fake_api(numbered) as api:
        assert ask(api, k=3) == [Sample("5"), Sample("6"), Sample("7")]
    assert api.requests == [
        {"model": "big", "messages": MESSAGES, "n": 3, "seed": 5, "temperature": 0.8, "top_p": 0.9, "max_tokens": 32}
    ]
    assert api.keys == ["Bearer secret"]


def test_a_trace_cut_by_length_says_so_and_an_empty_one_is_empty() -> None:
    with fake_api(lambda body: [("half a", "length"), (None, "content_filter")]) as api:  # type: ignore[list-item]
        assert ask(api) == [Sample("half a", truncated=True), Sample("")]


def test_a_server_that_ignores_n_is_asked_again_with_the_next_seeds() -> None:
    with fake_api(lambda body: numbered(body | {"n": 1})) as api:
        assert ask(api, k=3) == [Sample("5"), Sample("6"), Sample("7")]


def test_a_server_that_refuses_n_is_asked_one_at_a_time() -> None:
    def script(body: dict[str, Any]) -> Any:
        return Refusal(400, "n must be 1") if body["n"] > 1 else numbered(body)

    with fake_api(script) as api:
        assert ask(api, k=3) == [Sample("5"), Sample("6"), Sample("7")]
    assert [body["n"] for body in api.requests] == [3, 1, 1, 1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_it_tries_again_where_that_may_help(status: int) -> None:
    failures = iter([True, True])

    def script(body: dict[str, Any]) -> Any:
        return Refusal(status, headers={"Retry-After": "0.05"}) if next(failures, False) else numbered(body)

    with fake_api(script) as api:
        assert ask(api, retries=2) == [Sample("5"), Sample("6")]
    assert len(api.requests) == 3


def test_it_waits_as_long_as_the_server_asks() -> None:
    refusals = iter([Refusal(429, headers={"Retry-After": "1"})])
    started = time.monotonic()
    with fake_api(lambda body: next(refusals, None) or numbered(body)) as api:
        ask(api, retries=1)
    assert time.monotonic() - started >= 1.0


def test_a_server_that_keeps_failing_is_an_error_that_names_it() -> None:
    with fake_api(lambda body: Refusal(503, "overloaded", {"Retry-After": "0.05"})) as api:
        with pytest.raises(
            TeacherError, match=rf"{api.base_url} answered 503 to row row-7, after 2 retries: overloaded"
        ):
            ask(api, retries=2)
        assert len(api.requests) == 3


@pytest.mark.parametrize("status", [401, 400, 503])
def test_a_server_that_repeats_the_key_does_not_have_it_logged(status: int) -> None:
    with fake_api(lambda body: Refusal(status, "Incorrect API key provided: secret")) as api:
        with pytest.raises(OrpoRayError, match=r"Incorrect API key provided: \*\*\*") as error:
            ask(api)
        assert "secret" not in "".join(traceback.format_exception(error.value)).replace('key="secret"', "")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_users_to_mend_and_not_tried_again(status: int) -> None:
    with fake_api(lambda body: Refusal(status, "no such key")) as api:
        with pytest.raises(InputError, match=rf"refuses the API key \({status}\): no such key"):
            ask(api, retries=3)
        assert len(api.requests) == 1


def test_a_prompt_that_is_too_long_names_the_row() -> None:
    with (
        fake_api(lambda body: Refusal(400, "maximum context length is 10 tokens")) as api,
        pytest.raises(InputError, match=r"refuses the prompt of row row-7 \(400\): maximum context length"),
    ):
        ask(api)


def test_an_unknown_model_is_named() -> None:
    with (
        fake_api(lambda body: Refusal(404, "not found")) as api,
        pytest.raises(InputError, match="has no chat model 'big'"),
    ):
        ask(api)


def test_nobody_there_says_where_and_why() -> None:
    with pytest.raises(TeacherError, match=r"http://127.0.0.1:9/v1 cannot be reached, after 0 retries: .*[Cc]onn"):
        ask("http://127.0.0.1:9/v1")


def test_no_answer_in_time_says_which_limit() -> None:
    def slow(body: dict[str, Any]) -> list[tuple[str, str]]:
        time.sleep(1)
        return numbered(body)

    with (
        fake_api(slow) as api,
        pytest.raises(TeacherError, match=r"did not answer row row-7 within teacher.request_timeout_s = 0.2 s"),
    ):
        ask(api, timeout_s=0.2)


def test_requests_in_flight_are_bounded() -> None:
    def slow(body: dict[str, Any]) -> list[tuple[str, str]]:
        time.sleep(0.05)
        return numbered(body)

    async def many(api: FakeApi) -> None:
        one = teacher(api.base_url, concurrency=3)
        calls: list[Coroutine[Any, Any, Any]] = [
            one.sample(ROW, MESSAGES, k=2, temperature=1, top_p=1, max_tokens=8, seed=0)  # type: ignore[arg-type]
            for _ in range(12)
        ]
        await asyncio.gather(*calls)
        await one.close()

    with fake_api(slow) as api:
        asyncio.run(many(api))
    assert api.most_in_flight == 3


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TeacherConfig(backend="openai", model="m", base_url="u", api_key_env="A_TEACHERS_KEY")
    with pytest.raises(InputError, match="the environment variable A_TEACHERS_KEY is not set"):
        api_key(config)
    monkeypatch.setenv("A_TEACHERS_KEY", "k")
    assert api_key(config) == "k"
    assert api_key(TeacherConfig()) == "none"
