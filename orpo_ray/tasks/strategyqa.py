"""StrategyQA: yes-or-no questions that take several steps."""

from collections.abc import Mapping
from typing import Any

from orpo_ray.errors import DataError
from orpo_ray.tasks.answers.boolean import YesNoReader
from orpo_ray.tasks.answers.final import final_answer
from orpo_ray.tasks.record_task import RecordTask, present, text_field
from orpo_ray.tasks.task import Row

_GOLD: Mapping[object, str] = {True: "yes", False: "no", "yes": "yes", "no": "no", "true": "yes", "false": "no"}


class StrategyQATask(RecordTask):
    name = "strategyqa"
    hub = "ChilleD/StrategyQA"
    id_field = "qid"
    _reader = YesNoReader()

    def prompt(self, row: Row) -> str:
        return (
            f"{row.data['question'].strip()}\n\n"
            "Reason step by step. Then give the final answer on a last line of the form: The answer is <yes or no>."
        )

    def extract(self, text: str, row: Row | None = None) -> str | None:
        return final_answer(text, self._reader)

    def gold(self, row: Row) -> str:
        return _GOLD[_folded(row.data["answer"])]

    def check(self, data: Mapping[str, Any], where: str) -> None:
        text_field(data, "question", where)
        answer = _folded(present(data, "answer", where))
        if not isinstance(answer, bool | str) or answer not in _GOLD:
            raise DataError(f"{where}: field 'answer' must be true or false, not {data['answer']!r}")


def _folded(answer: object) -> object:
    return answer.strip().lower() if isinstance(answer, str) else answer
