"""A configuration is dumped, logged and published, so a secret in it is refused, and not repeated."""

from typing import Any

import pytest

from orpo_ray.config import parse_config
from orpo_ray.config.secrecy import is_loopback_host
from orpo_ray.errors import ConfigError

PLANTED = "sk-proj-4d1f6f0c9a"


def refused(**teacher: Any) -> str:
    base = {"backend": "openai", "model": "m", "base_url": "https://host/v1"}
    with pytest.raises(ConfigError) as error:
        parse_config({"task": {"name": "arithmetic"}, "student": {"model": "s"}, "teacher": base | teacher})
    assert PLANTED not in str(error.value)
    assert PLANTED not in repr(error.value.problems)
    return str(error.value)


def test_a_key_where_a_variables_name_belongs() -> None:
    assert "teacher.api_key_env: names an environment variable" in refused(api_key_env=PLANTED)
    assert "teacher.serve.api_key_env: names an environment" in refused(serve={"api_key_env": PLANTED})


@pytest.mark.parametrize("url", [f"https://me:{PLANTED}@host/v1", f"https://host/v1?api_key={PLANTED}"])
def test_a_key_in_the_url(url: str) -> None:
    assert "teacher.base_url: holds a user, a password or a query" in refused(base_url=url)


def test_the_judge_and_the_trackers_have_urls_and_keys_too() -> None:
    judge = {"base_url": f"https://host/v1?key={PLANTED}", "model": "m", "api_key_env": PLANTED}
    with pytest.raises(ConfigError) as error:
        parse_config(
            {
                "task": {"name": "arithmetic", "judge": judge},
                "student": {"model": "s"},
                "teacher": {"model": "t"},
                "tracking": {"mlflow_uri": f"postgresql://me:{PLANTED}@host/db"},
            }
        )
    said = str(error.value)
    assert PLANTED not in said
    for option in ("task.judge.base_url: holds", "task.judge.api_key_env: names", "tracking.mlflow_uri: holds"):
        assert option in said


@pytest.mark.parametrize(
    "url",
    [f"s3://key:{PLANTED}@bucket/runs", f"s3://bucket/runs?secret_key={PLANTED}", f"gs://bucket/runs?token={PLANTED}"],
)
def test_a_key_in_the_mirrors_url(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(
            {
                "task": {"name": "arithmetic"},
                "student": {"model": "s"},
                "teacher": {"model": "t"},
                "storage": {"mirror": url},
            }
        )
    assert PLANTED not in str(error.value)
    assert "storage.mirror: holds a user, a password or an unknown query" in str(error.value)


def test_a_token_for_the_engine() -> None:
    assert "teacher.engine.extra: hf_token is a secret" in refused(engine={"extra": {"hf_token": PLANTED}})


def test_an_option_that_is_none() -> None:
    assert "teacher.api_key: unknown option; did you mean `api_key_env`?" in refused(api_key=PLANTED)


def test_what_is_no_secret_is_taken() -> None:
    config = parse_config(
        {
            "task": {"name": "arithmetic"},
            "student": {"model": "s", "engine": {"extra": {"hf_token": True}}},
            "teacher": {"backend": "openai", "model": "m", "base_url": "https://h:8443/v1", "api_key_env": "MY_KEY_2"},
        }
    )
    assert config.teacher.api_key_env == "MY_KEY_2"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost"])
def test_what_only_its_own_machine_reaches(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0", "::ffff:10.0.0.7", "10.0.0.7", "head.cluster"])
def test_what_others_reach(host: str) -> None:
    assert not is_loopback_host(host)
