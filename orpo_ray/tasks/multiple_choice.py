"""Multiple choice: ARC-Challenge, OpenBookQA and MedQA. The options, as many as there are, come from the row."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from orpo_ray.errors import DataError
from orpo_ray.tasks.answers.final import final_answer
from orpo_ray.tasks.answers.label import LabelReader
from orpo_ray.tasks.record_task import RecordTask, present, text_field
from orpo_ray.tasks.task import Row

# The traces of one prompt are judged one after another.
_reader = lru_cache(maxsize=1024)(LabelReader)


class ChoiceTask(RecordTask):
    """One option is right, and the answer is its label, be that a letter or a number."""

    question_field = "question"
    gold_field = "answerKey"

    @abstractmethod
    def options(self, data: Mapping[str, Any]) -> dict[str, str]:
        """Label → text, in the row's order."""

    @abstractmethod
    def check_options(self, data: Mapping[str, Any], where: str) -> None:
        """Raises DataError unless `options` can read `data`."""

    def prompt(self, row: Row) -> str:
        options = self.options(row.data)
        listed = "\n".join(f"{label}. {text}" for label, text in options.items())
        return (
            f"{row.data[self.question_field].strip()}\n{listed}\n\n"
            "Reason step by step. Then give the final answer on a last line of the form: The answer is (X). "
            f"X is one of {', '.join(options)}."
        )

    def extract(self, text: str, row: Row | None = None) -> str | None:
        options = {} if row is None else self.options(row.data)
        return final_answer(text, _reader(tuple(options), tuple(options.values())))

    def gold(self, row: Row) -> str:
        return str(row.data[self.gold_field]).strip()

    def check(self, data: Mapping[str, Any], where: str) -> None:
        text_field(data, self.question_field, where)
        self.check_options(data, where)
        options = self.options(data)
        if len(options) < 2:
            raise DataError(f"{where}: a question must have two options at least, not {len(options)}")
        gold = str(present(data, self.gold_field, where)).strip()
        if gold not in options:
            raise DataError(
                f"{where}: field {self.gold_field!r} is {gold!r}, which is none of the labels {', '.join(options)}"
            )


class LabelledChoiceTask(ChoiceTask):
    """Options as `choices: {text: […], label: […]}`."""

    id_field = "id"

    def options(self, data: Mapping[str, Any]) -> dict[str, str]:
        choices = data["choices"]
        return {str(label).strip(): text for label, text in zip(choices["label"], choices["text"], strict=True)}

    def check_options(self, data: Mapping[str, Any], where: str) -> None:
        choices = present(data, "choices", where)
        labels, texts = (choices.get("label"), choices.get("text")) if isinstance(choices, Mapping) else (None, None)
        if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
            raise DataError(f"{where}: field 'choices' must be {{text: […], label: […]}}, two lists of one length")
        if not all(isinstance(text, str) for text in texts) or len({str(label).strip() for label in labels}) < len(
            labels
        ):
            raise DataError(f"{where}: field 'choices' must hold texts, and a different label for each")


class ARCChallengeTask(LabelledChoiceTask):
    name = "arc_challenge"
    hub = "allenai/ai2_arc:ARC-Challenge"


class OpenBookQATask(LabelledChoiceTask):
    name = "openbookqa"
    hub = "allenai/openbookqa:main"
    question_field = "question_stem"


class MedQATask(ChoiceTask):
    """MedQA-USMLE with four or five options, as `options: {A: …, B: …}`."""

    name = "medqa"
    hub = "GBaker/MedQA-USMLE-4-options"
    gold_field = "answer_idx"

    def options(self, data: Mapping[str, Any]) -> dict[str, str]:
        # Parquet gives every row the labels of all rows, with no text where a row lacks one.
        return {label: text for label, text in data["options"].items() if text is not None}

    def check_options(self, data: Mapping[str, Any], where: str) -> None:
        options = present(data, "options", where)
        if not isinstance(options, Mapping) or not all(isinstance(text, str | None) for text in options.values()):
            raise DataError(f"{where}: field 'options' must be an object of label and text, as {{A: …, B: …}}")
