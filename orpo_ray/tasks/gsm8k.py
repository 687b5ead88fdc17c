"""GSM8K: grade-school word problems whose answer is a number. Any file of `question` and `answer` (`… #### 42`) will do."""

import re
from collections.abc import Mapping
from typing import Any

from orpo_ray.errors import DataError
from orpo_ray.tasks.answers.final import final_answer
from orpo_ray.tasks.answers.number import NumberReader, value
from orpo_ray.tasks.answers.symbolic import Comparison, compare
from orpo_ray.tasks.record_task import RecordTask, text_field
from orpo_ray.tasks.task import Row, Verdict

_CALCULATOR_NOTE = re.compile(r"<<[^<>\n]*>>")


class NumberTask(RecordTask):
    """Answers are numbers, compared by value; those that are expressions, by math-verify."""

    _reader = NumberReader()

    def extract(self, text: str, row: Row | None = None) -> str | None:
        return final_answer(text, self._reader)

    def judge(self, row: Row, answer: str) -> Verdict:
        gold = self.gold(row)
        right, given = value(gold), value(answer)
        if right is not None and given is not None:
            # 25% is right where the data says 25, and where it says 0.25.
            as_share = answer.endswith("%") and right.denominator != 1 and given / 100 == right
            return Verdict.RIGHT if given == right or as_share else Verdict.WRONG
        match compare(gold, answer):
            case Comparison.EQUAL:
                return Verdict.RIGHT
            case Comparison.DIFFERENT:
                return Verdict.WRONG
            case Comparison.UNREADABLE:
                return Verdict.UNPARSED


class GSM8KTask(NumberTask):
    name = "gsm8k"
    hub = "openai/gsm8k:main"

    def prompt(self, row: Row) -> str:
        return (
            f"{row.data['question'].strip()}\n\n"
            "Reason step by step. Then give the final answer on a last line of the form: #### <number>"
        )

    def gold(self, row: Row) -> str:
        return str(row.data["answer"]).rpartition("####")[2].strip()

    def solution(self, row: Row) -> str | None:
        text = str(row.data["answer"])
        return _CALCULATOR_NOTE.sub("", text).strip() if "####" in text else None

    def check(self, data: Mapping[str, Any], where: str) -> None:
        text_field(data, "question", where)
        _, mark, gold = text_field(data, "answer", where).rpartition("####")
        if not gold.strip() or (not mark and value(gold) is None):
            raise DataError(f"{where}: field 'answer' ends with no gold answer; `#### 42` at its end is right")
