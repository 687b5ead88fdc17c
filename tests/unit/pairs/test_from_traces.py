"""Which stored traces become positives and negatives, for each source that the options name."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from orpo_ray.pairs import PairSource, SourcePrompt, write_pair_source
from orpo_ray.pairs.from_traces import with_positives, without_student
from orpo_ray.tasks import Row
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import TraceDraft, TraceStore
from tests.tiny.models import make_model
from tests.tiny.runs import tiny_config
from tests.tiny.sums import SumsTask

ROWS = 4


class SolvedSums(SumsTask):
    """Sums whose rows bring a solution, but for the last."""

    def solution(self, row: Row) -> str | None:
        return (
            None
            if row.data["b"] == self.rows()[ROWS - 1].data["b"]
            else f"By the book. The answer is {self.gold(row)}."
        )


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def tokenizer(student: Path) -> Any:
    return AutoTokenizer.from_pretrained(student)


@pytest.fixture
def rows(student: Path, tmp_path: Path) -> list[Row]:
    config = tiny_config(tmp_path, student, task={"train_size": ROWS})
    return list(split_of(config.task, "train", 0).rows())


@pytest.fixture
def store(tmp_path: Path, rows: list[Row]) -> TraceStore:
    """Right, right and kept twice; a wrong and a cut one; nothing right; no trace at all."""
    draft = TraceDraft(tmp_path / "teacher")
    traces = [
        trace(rows[0], 0, "First way. The answer is 1.", "right", kept=True),
        trace(rows[0], 1, "Another way it goes. The answer is 1.", "right", kept=True),
        trace(rows[1], 0, "So it is. The answer is 2.", "right", kept=True),
        trace(rows[1], 1, "Not so. The answer is 9.", "wrong"),
        trace(rows[1], 2, "Not so. The answer is 9.", "wrong"),
        trace(rows[1], 3, "It goes on and on and", "unparsed", truncated=True),
        trace(rows[2], 0, "The answer is 7.", "wrong"),
    ]
    draft.write(0, traces, ROWS)
    return draft.finish(1, "key", {})


def trace(row: Row, sample: int, text: str, verdict: str, *, kept: bool = False, truncated: bool = False) -> Trace:
    return Trace(row.id, sample, text, None, verdict, truncated, kept, False, "teacher", "byhand")


def positives(
    tmp_path: Path, student: Path, store: TraceStore, tokenizer: Any, **options: Any
) -> tuple[dict[str, list[str]], list[str]]:
    config = tiny_config(tmp_path, student, task={"train_size": ROWS}, positives=options)
    gold: list[str] = []
    task = SolvedSums("train", {"test": config.task.test_size, "train": ROWS})
    found = with_positives(config, task, store, tokenizer, gold)
    return {item.prompt_id: [tokenizer.decode(ids) for ids in item.positives] for item in found}, gold


def test_all_right_traces_or_the_first(
    tmp_path: Path, student: Path, store: TraceStore, tokenizer: Any, rows: list[Row]
) -> None:
    everything, gold = positives(tmp_path, student, store, tokenizer)
    assert list(everything) == [rows[0].id, rows[1].id]
    assert everything[rows[0].id] == [
        "First way. The answer is 1.</s>",
        "Another way it goes. The answer is 1.</s>",
    ]
    single, _ = positives(tmp_path, student, store, tokenizer, per_prompt=1)
    assert single == {name: texts[:1] for name, texts in everything.items()}
    assert gold == []


def test_gold_rationales_stand_in_where_no_trace_is_right(
    tmp_path: Path, student: Path, store: TraceStore, tokenizer: Any, rows: list[Row]
) -> None:
    found, gold = positives(tmp_path, student, store, tokenizer, fallback="gold")
    assert gold == [rows[2].id], "the last row has no solution either"
    total = rows[2].data["a"] + rows[2].data["b"]
    assert found[rows[2].id] == [f"By the book. The answer is {total}.</s>"]
    assert rows[3].id not in found


@pytest.mark.parametrize(
    ("negatives", "wrong", "counts"),
    [
        ({"source": "teacher", "truncated": "drop"}, ["Not so. The answer is 9.</s>"], (1, 1, 1)),
        ({"source": "teacher", "truncated": "keep"},
         ["Not so. The answer is 9.</s>", "It goes on and on and"], (2, 1, 1)),
        ({"source": "none"}, [], (0, 0, 2)),
    ],
)  # fmt: skip
def test_the_teachers_wrong_traces_as_negatives(
    tmp_path: Path,
    student: Path,
    store: TraceStore,
    tokenizer: Any,
    rows: list[Row],
    negatives: dict[str, str],
    wrong: list[str],
    counts: tuple[int, ...],
) -> None:
    """Thinned as a student's are; a trace that was cut has no end token."""
    objective = "orpo" if negatives["source"] == "teacher" else "sft"
    config = tiny_config(
        tmp_path, student, task={"train_size": ROWS}, negatives=negatives, policy={"phi": 0},
        train={"objective": objective},
    )  # fmt: skip
    task = split_of(config.task, "train", 0)
    write_pair_source(tmp_path / "positives", with_positives(config, task, store, tokenizer, []))
    found = {"negatives": 0, "near_duplicates": 0, "never_wrong": 0}
    source = PairSource(tmp_path / "positives")
    prompts: list[SourcePrompt] = list(without_student(config, task, store, tokenizer, source, found))
    assert [item.prompt_id for item in prompts] == [rows[0].id, rows[1].id]
    assert prompts[0].negatives == []
    assert [tokenizer.decode(ids) for ids in prompts[1].negatives] == wrong
    assert tuple(found.values()) == counts
