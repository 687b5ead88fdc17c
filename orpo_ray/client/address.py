"""Where the cluster is, and what is sent to be let in."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from orpo_ray.config.secrecy import is_loopback_host
from orpo_ray.errors import InputError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
# Ray's own names for both, in the order in which it asks for them.
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TOKEN, _TOKEN_FILE, _MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"


def dashboard_address(address: str | None) -> str:
    """The URL of a cluster's dashboard: `address`, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else this machine's.

    Raises:
        InputError: it is another address than a dashboard's, or holds a password.
    """
    given, source = address, "--address"
    for name in _ADDRESSES:
        if not given and (found := os.environ.get(name, "")) not in ("", "auto", "local"):
            given, source = found, name
    given = given or DEFAULT_ADDRESS
    url = given if "://" in given else f"http://{given}"
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise InputError(f"{source}: holds a user or a password, and addresses are logged; put a token into {_TOKEN}")
    if parts.scheme not in ("http", "https") or not parts.hostname or _port(parts.netloc) == 6379:
        raise InputError(
            f"{source}: {given} is not the address of a Ray dashboard, whose jobs the client talks to; "
            "take http://HEAD:8265"
        )
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own; a forwarded port is, too."""
    return is_loopback_host(urlsplit(url).hostname or "")


def find_token(token: str | None, url: str) -> str | None:
    """The token to send: the one given, else RAY_AUTH_TOKEN's, else the one in the file RAY_AUTH_TOKEN_PATH.

    Ray's default file, ~/.ray/auth_token, holds the token of this user's own clusters: it is sent to this machine, and
    elsewhere only where RAY_AUTH_MODE=token says so.

    Raises:
        InputError: the file that RAY_AUTH_TOKEN_PATH names cannot be read, or a token holds what no header may.
    """
    found = token or os.environ.get(_TOKEN)
    if not found and (path := os.environ.get(_TOKEN_FILE)):
        try:
            found = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{_TOKEN_FILE}: {path} cannot be read ({error.strerror})") from None
    if not found and (is_loopback(url) or os.environ.get(_MODE, "").lower() == "token"):
        try:
            found = (Path.home() / ".ray" / "auth_token").read_text(encoding="utf-8")
        except (OSError, RuntimeError):
            found = None
    found = (found or "").strip()
    if not found:
        return None
    if not found.isascii() or not found.isprintable():
        raise InputError("the cluster's token holds characters that no HTTP header may; give it as Ray printed it")
    return found


def _port(netloc: str) -> int | None:
    _, _, port = netloc.rpartition(":")
    return int(port) if port.isdigit() else None
