"""A task that a random model gets right about every other time."""

from orpo_ray.tasks import Row
from tests.tiny.sums import SumsTask


class NoiseTask(SumsTask):
    """The answer of a text is whether its length is odd or even; odd is right, and an empty text has none."""

    name = "noise"

    def extract(self, text: str, row: Row | None = None) -> str | None:
        return ("even", "odd")[len(text) % 2] if text else None

    def gold(self, row: Row) -> str:
        return "odd"
