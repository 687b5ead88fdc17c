"""ASGI middleware that lets in who holds the key."""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

_BEARER = b"bearer "
# As OpenAI's own servers say it.
_TEACHERS = {"message": "this teacher asks for a key", "type": "invalid_request_error", "code": "invalid_api_key"}


class KeyGate:
    """Answers 401 to every request without the key, and passes on nothing of it.

    Args:
        key_sha256: hex digest of the key.
        refusal: the body of the 401, JSON.
        open_to_all: whether a path is anybody's.
    """

    def __init__(
        self,
        app: Any,
        key_sha256: str,
        refusal: Mapping[str, Any] | None = None,
        open_to_all: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self._app, self._key_sha256, self._open = app, key_sha256, open_to_all
        self._refusal = json.dumps(refusal or {"error": _TEACHERS}).encode()
        self._headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self._refusal)).encode()),
            (b"www-authenticate", b"Bearer"),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (
            scope["type"] == "lifespan"
            or (scope["type"] == "http" and self._open(scope.get("path", "")))
            or admits(scope.get("headers", []), self._key_sha256)
        ):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": self._headers})
            await send({"type": "http.response.body", "body": self._refusal})
        else:
            await send({"type": "websocket.close", "code": 1008})


def digest(key: str) -> str:
    """What a gate knows of its key."""
    return hashlib.sha256(key.encode()).hexdigest()


def admits(headers: list[tuple[bytes, bytes]], key_sha256: str) -> bool:
    """Whether a request's headers hold the key; takes as long for a wrong one as for the right one."""
    given = next((value for name, value in headers if name.lower() == b"authorization"), b"")
    if not given.lower().startswith(_BEARER):
        return False
    return hmac.compare_digest(hashlib.sha256(given[len(_BEARER) :].strip()).hexdigest(), key_sha256)
