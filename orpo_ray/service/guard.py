"""ASGI middleware: how large a request may be, and what a browser may do with an answer."""

import json
from typing import Any

_HEADERS = [
    # The page is this service's own files and nothing else.
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class BodyLimit:
    """Answers 413 to a request whose body is longer than `limit` bytes, whether it says so or not."""

    def __init__(self, app: Any, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not said.isdigit() or int(said) > self._limit:
            await self._refuse(send)
            return
        # The body is taken in before the application sees any of it, so that a refusal can still be sent.
        parts: list[bytes] = []
        length, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            more = message.get("more_body", False)
            if length > self._limit:
                await self._refuse(send)
                return
        whole: dict[str, Any] | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

        async def again() -> Any:
            nonlocal whole
            message, whole = whole, None
            return message if message is not None else await receive()

        await self._app(scope, again, send)

    async def _refuse(self, send: Any) -> None:
        body = json.dumps(
            {"detail": f"the request's body is longer than {self._limit:,} bytes", "problems": []}
        ).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Headers:
    """Adds to every answer what a browser is to be told."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)
