"""Whether a judge marks as people do: its agreement with answers that they have marked."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from orpo_ray.config.judge import JudgeConfig
from orpo_ray.errors import DataError, InputError
from orpo_ray.tasks.judged import Judge
from orpo_ray.tasks.records import Record, read_records


@dataclass(frozen=True)
class Agreement:
    """Counts of answers by what the judge said and what people said."""

    both_right: int = 0
    both_wrong: int = 0
    judge_alone: int = 0
    """The judge says right, people say wrong: such a trace would be learned from."""
    people_alone: int = 0

    @property
    def total(self) -> int:
        return self.both_right + self.both_wrong + self.judge_alone + self.people_alone

    @property
    def share(self) -> float:
        return (self.both_right + self.both_wrong) / self.total

    @property
    def kappa(self) -> float:
        """Cohen's κ: agreement beyond chance. 0 where one of the two always says the same, as then nothing can be told."""
        judge = (self.both_right + self.judge_alone) / self.total
        people = (self.both_right + self.people_alone) / self.total
        chance = judge * people + (1 - judge) * (1 - people)
        return (self.share - chance) / (1 - chance) if chance < 1 else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "answers": self.total,
            "agreement": round(self.share, 6),
            "kappa": round(self.kappa, 6),
            "judge_alone_says_right": self.judge_alone,
            "people_alone_say_right": self.people_alone,
        }

    @classmethod
    def of(cls, pairs: Sequence[tuple[bool, bool]]) -> "Agreement":
        """From (the judge says right, people say right)."""
        counts = {pair: pairs.count(pair) for pair in set(pairs)}
        return cls(
            counts.get((True, True), 0),
            counts.get((False, False), 0),
            counts.get((True, False), 0),
            counts.get((False, True), 0),
        )


def check_agreement(judge: JudgeConfig) -> Agreement | None:
    """Let the judge mark the labelled answers; None where there are none.

    Raises:
        InputError: it agrees too seldom; says the numbers.
        DataError: the labelled file is broken; names the line.
        VerifierError: the judge failed.
    """
    if judge.labelled is None:
        return None
    marked = [_checked(record) for record in read_records(judge.labelled, "train")]
    asked = Judge(judge)
    with ThreadPoolExecutor(judge.concurrency) as pool:
        said = list(
            pool.map(lambda data: asked.right(data["question"], data.get("reference") or "", data["answer"]), marked)
        )
    agreement = Agreement.of([(mark, data["right"]) for mark, data in zip(said, marked, strict=True)])
    if agreement.share < judge.min_agreement:
        raise InputError(
            f"task.judge: {judge.model} marks {agreement.share:.1%} of {agreement.total} labelled answers as people did "
            f"(κ {agreement.kappa:.2f}; it alone says right {agreement.judge_alone} times, people alone "
            f"{agreement.people_alone}), and task.judge.min_agreement is {judge.min_agreement:g}; sharpen the rubric or take "
            "another judge"
        )
    return agreement


def _checked(record: Record) -> Mapping[str, Any]:
    for field, kind, words in (("question", str, "text"), ("answer", str, "text"), ("right", bool, "true or false")):
        if not isinstance(record.data.get(field), kind):
            raise DataError(f"{record.where}: field {field!r} must be {words}, not {record.data.get(field)!r}")
    return record.data
