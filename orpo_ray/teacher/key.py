"""The key that a served teacher asks for, so that nobody else than was meant uses it."""

import os
import secrets

from orpo_ray.config import RunConfig
from orpo_ray.config.secrecy import is_loopback_host
from orpo_ray.errors import InputError


def served_key(config: RunConfig, host: str | None = None, *, own_clients: bool) -> str | None:
    """The key for a served teacher; None where none is asked for.

    Args:
        host: that it listens on; `teacher.serve.host` where None.
        own_clients: its only clients are the run's own, so that a key may be made up for them.

    Raises:
        InputError: others than this machine would reach it without a key, and nobody has said that they may; or
            `teacher.serve.api_key_env` is not set in the environment.
    """
    serve = config.teacher.serve
    if serve.api_key_env is not None:
        key = os.environ.get(serve.api_key_env, "").strip()
        if not key:
            raise InputError(
                f"teacher.serve.api_key_env: the environment variable {serve.api_key_env} is not set; put the key that "
                "the served teacher is to ask for into it"
            )
        return key
    host = host or serve.host
    if is_loopback_host(host):
        return None
    if own_clients:
        return secrets.token_urlsafe(32)
    if serve.insecure:
        return None
    raise InputError(
        f"teacher.serve.host: {host} is reached by others than this machine, and anybody could use the teacher; name a "
        "variable that holds a key with teacher.serve.api_key_env, or say --insecure (teacher.serve.insecure: true)"
    )
