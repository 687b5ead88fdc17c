"""A copy of a run in an object store, complete at every moment, from which a fresh machine goes on."""

from orpo_ray.mirror.follow import STORE, Mirror, MirrorError, mirror_of
from orpo_ray.mirror.place import open_place

__all__ = ["STORE", "Mirror", "MirrorError", "mirror_of", "open_place"]
