"""Open-ended questions, from records {question, reference?}: a judge says what answers are right."""

from collections.abc import Mapping
from typing import Any

from orpo_ray.errors import DataError
from orpo_ray.tasks.record_task import RecordTask, text_field
from orpo_ray.tasks.splits import SplitSize
from orpo_ray.tasks.task import Row


class OpenEndedTask(RecordTask):
    """Rows of a file of one's own."""

    name = "open_ended"
    id_field = "id"

    def __init__(
        self,
        path: str | None = None,
        *,
        split: str = "train",
        sizes: Mapping[str, SplitSize] | None = None,
        seed: int = 0,
    ) -> None:
        if path is not None:
            super().__init__(path, split=split, sizes=sizes, seed=seed)
            return
        # Made for its prompts alone, as any task may be.
        self.path, self.split, self._sizes, self._seed, self._rows = "", split, sizes, seed, None

    def rows(self) -> list[Row]:
        if not self.path:
            raise DataError(
                "task 'open_ended' has no data of its own; set task.path to a JSONL file of {question, reference}"
            )
        return super().rows()

    def prompt(self, row: Row) -> str:
        return f"{row.data['question'].strip()}\n\nReason step by step, then answer."

    def extract(self, text: str, row: Row | None = None) -> str | None:
        return text.strip() or None

    def gold(self, row: Row) -> str:
        """The reference; empty where there is none, and the rubric alone must do."""
        return str(row.data.get("reference") or "")

    def solution(self, row: Row) -> str | None:
        return self.gold(row) or None

    def check(self, data: Mapping[str, Any], where: str) -> None:
        text_field(data, "question", where)
        if data.get("reference") is not None:
            text_field(data, "reference", where)
