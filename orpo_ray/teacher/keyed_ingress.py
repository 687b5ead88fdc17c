"""Ray Serve's OpenAI ingress, behind a key."""

import hashlib
import hmac
import json
from typing import Any

from ray.serve.llm.ingress import OpenAiIngress

_BEARER = b"bearer "
# As OpenAI's own servers say it.
_ERROR = {"message": "this teacher asks for a key", "type": "invalid_request_error", "code": "invalid_api_key"}
_REFUSAL = json.dumps({"error": _ERROR}).encode()
_REFUSAL_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_REFUSAL)).encode()),
    (b"www-authenticate", b"Bearer"),
]


class KeyGate:
    """ASGI middleware: answers 401 to every request without the key, and passes on nothing of it.

    Args:
        key_sha256: hex digest of the key.
    """

    def __init__(self, app: Any, key_sha256: str) -> None:
        self._app, self._key_sha256 = app, key_sha256

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or admits(scope.get("headers", []), self._key_sha256):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": _REFUSAL_HEADERS})
            await send({"type": "http.response.body", "body": _REFUSAL})
        else:
            await send({"type": "websocket.close", "code": 1008})


class KeyedIngress(OpenAiIngress):
    """The ingress behind a `KeyGate`.

    Args:
        key_sha256: hex digest of the key, which is thus itself in no state of Serve's.
    """

    def __init__(self, *args: Any, key_sha256: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key_sha256 = key_sha256

    def __serve_build_asgi_app__(self) -> Any:
        """Serve asks for the application by this, once on every replica, before it answers anybody."""
        app: Any = self.app  # type: ignore[attr-defined]  # of Serve's wrapper, which comes behind this class
        app.add_middleware(KeyGate, key_sha256=self._key_sha256)
        return app


def admits(headers: list[tuple[bytes, bytes]], key_sha256: str) -> bool:
    """Whether a request's headers hold the key."""
    given = next((value for name, value in headers if name.lower() == b"authorization"), b"")
    if not given.lower().startswith(_BEARER):
        return False
    return hmac.compare_digest(hashlib.sha256(given[len(_BEARER) :].strip()).hexdigest(), key_sha256)
