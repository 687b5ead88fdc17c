"""A task whose verifier breaks on one row."""

from orpo_ray.tasks import Row
from tests.tiny.sums import SumsTask


class BrokenTask(SumsTask):
    """Sums that cannot be checked where both numbers are 1."""

    name = "broken"

    def extract(self, text: str, row: Row | None = None) -> str | None:
        if row is not None and row.id == "1+1":
            raise LookupError("no table for this sum")
        return super().extract(text, row)
