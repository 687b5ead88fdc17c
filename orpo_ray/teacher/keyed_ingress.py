"""Ray Serve's OpenAI ingress, behind a key."""

from typing import Any

from ray.serve.llm.ingress import OpenAiIngress

from orpo_ray.teacher.key_gate import KeyGate


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
