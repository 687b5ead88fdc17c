"""A teacher that has spoken already: traces in a file, or the solutions that the task's own rows hold."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orpo_ray.errors import DataError, InputError
from orpo_ray.tasks import Message, Row, Task, question_key
from orpo_ray.tasks.records import Record, read_records
from orpo_ray.teacher.protocol import Sample

# teacher.path that means the task rows' own solutions.
DATASET = "dataset"


@dataclass(frozen=True)
class RecordedTrace:
    """One line of the file. It names its prompt by id or by the question's text."""

    prompt_id: str | None
    question: str | None
    text: str
    truncated: bool


@dataclass(frozen=True)
class RecordedTeacher:
    """Gives a prompt's recorded traces, in the file's order."""

    by_id: Mapping[str, Sequence[Sample]]
    by_question: Mapping[str, Sequence[Sample]] = field(default_factory=dict)

    async def sample(
        self,
        row: Row,
        messages: Sequence[Message],
        *,
        k: int,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
    ) -> list[Sample]:
        return [*self.by_id.get(row.id, ()), *self.by_question.get(question_key(row), ())][:k]

    async def close(self) -> None:
        return


@dataclass(frozen=True)
class DatasetTeacher:
    """Gives the worked solution that a row of the data set holds, as GSM8K's rows do."""

    task: Task

    async def sample(
        self,
        row: Row,
        messages: Sequence[Message],
        *,
        k: int,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
    ) -> list[Sample]:
        solution = self.task.solution(row)
        return [] if solution is None else [Sample(solution)]

    async def close(self) -> None:
        return


def load_recorded(path: str) -> RecordedTeacher:
    """Read a file of traces into memory.

    Raises:
        DataError: as `recorded_traces`.
    """
    by_id: dict[str, list[Sample]] = {}
    by_question: dict[str, list[Sample]] = {}
    for trace in recorded_traces(path):
        sample = Sample(trace.text, trace.truncated)
        if trace.prompt_id is not None:
            by_id.setdefault(trace.prompt_id, []).append(sample)
        elif trace.question is not None:
            by_question.setdefault(_key(trace.question), []).append(sample)
    return RecordedTeacher(by_id, by_question)


def recorded_traces(path: str) -> Iterator[RecordedTrace]:
    """The traces of a JSON Lines or Parquet file, one at a time.

    Fields: `prompt_id` or `question`; `text` (or `trace`); and, where known, `truncated` or `finish_reason`.

    Raises:
        DataError: the file is missing, empty or broken, or a record lacks a field; names file and line.
    """
    for record in read_records(path, "train"):
        yield _trace(record)


def check_recorded(path: str, rows: Iterable[Row]) -> None:
    """Read the file once and see that it is about these rows.

    Raises:
        DataError: as `recorded_traces`.
        InputError: no trace belongs to any of the rows.
    """
    ids: set[str] = set()
    questions: set[str] = set()
    example = ""
    for row in rows:
        ids.add(row.id)
        questions.add(question_key(row))
        example = example or row.id
    found, first = 0, ""
    for trace in recorded_traces(path):
        named = trace.prompt_id in ids if trace.prompt_id is not None else _key(trace.question or "") in questions
        found += named
        first = first or str(trace.prompt_id if trace.prompt_id is not None else trace.question)
    if not found:
        raise InputError(
            f"teacher.path: no trace of {path} belongs to a training prompt; its first names {first[:80]!r}, "
            f"and the prompts' ids are like {example!r} (or give the question's text as `question`)"
        )


def check_solutions(task: Task, rows: Iterable[Row]) -> None:
    """See that the task's rows hold solutions.

    Raises:
        InputError: not one does.
    """
    if all(task.solution(row) is None for row in rows):
        raise InputError(
            f"teacher.path: `dataset`, but the rows of task {task.name!r} hold no worked solutions; "
            "give a JSONL or Parquet file of traces, or another teacher.backend"
        )


def _trace(record: Record) -> RecordedTrace:
    data, where = record.data, record.where
    prompt_id, question = data.get("prompt_id"), data.get("question")
    if prompt_id is None and question is None:
        raise DataError(f"{where}: missing field 'prompt_id' or 'question'; {_there(data)}")
    if question is not None and not isinstance(question, str):
        raise DataError(f"{where}: field 'question' is not text")
    name = "text" if "text" in data else "trace"
    text = data.get(name)
    if text is None:
        raise DataError(f"{where}: missing field 'text' or 'trace'; {_there(data)}")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: field {name!r} is not a text with something in it")
    truncated = bool(data.get("truncated", data.get("finish_reason") == "length"))
    return RecordedTrace(None if prompt_id is None else str(prompt_id), question, text, truncated)


def _there(data: Mapping[str, Any]) -> str:
    return f"the fields there are {', '.join(repr(name) for name in data) or 'none'}"


def _key(question: str) -> str:
    return question_key(Row(id="", split="", data={"question": question}))
