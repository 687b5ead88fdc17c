"""orpo_ray: ORPO-Distill (arXiv 2509.25100) as a distributed service on Ray.

`orpo_ray.Client` and `orpo_ray.AsyncClient` submit runs from Python; all else is `orpo_ray.client`'s.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orpo_ray.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """The client, once it is asked for: every module imports this package, and few want a client."""
    if name in ("AsyncClient", "Client"):
        return getattr(import_module("orpo_ray.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
