"""Rows from files, and what is said where a file is at fault."""

import gzip
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orpo_ray.errors import DataError
from orpo_ray.tasks import load_task

GSM = {"question": "6 times 7?", "answer": "6*7=<<6*7=42>>42\n#### 42"}
ARC = {
    "id": "q1",
    "question": "Which is wet?",
    "choices": {"text": ["rain", "sand"], "label": ["1", "2"]},
    "answerKey": "1",
}
MEDQA = {"question": "Which?", "answer": "iron", "options": {"A": "iron", "B": "zinc"}, "answer_idx": "A"}
STRATEGY = {"qid": "s1", "question": "Is it?", "answer": True}

Write = Callable[..., str]


@pytest.mark.parametrize(
    ("task", "lines", "says"),
    [
        ("gsm8k", [GSM, '{"question": "a'], r"rows\.jsonl:2: broken JSON: .+ at column \d+"),
        ("gsm8k", [GSM, "", "[1]"], r"rows\.jsonl:3: a JSON object is right, not an array"),
        ("gsm8k", [GSM, {"question": "a"}], r"rows\.jsonl:2: missing field 'answer'; the fields there are 'question'"),
        ("gsm8k", [{**GSM, "question": 3}], r"rows\.jsonl:1: field 'question' must be text, not 3"),
        ("gsm8k", [{**GSM, "question": " "}], r"rows\.jsonl:1: field 'question' must be text"),
        ("gsm8k", [{**GSM, "answer": "forty"}], r"rows\.jsonl:1: field 'answer' ends with no gold answer"),
        ("gsm8k", [{**GSM, "answer": "a ####"}], r"rows\.jsonl:1: field 'answer' ends with no gold answer"),
        ("gsm8k", [], r"rows\.jsonl: holds no rows"),
        ("gsm8k", ["", " "], r"rows\.jsonl: holds no rows"),
        (
            "arc_challenge",
            [{**ARC, "answerKey": "C"}],
            r":1: field 'answerKey' is 'C', which is none of the labels 1, 2",
        ),
        ("arc_challenge", [{**ARC, "choices": ["rain"]}], r":1: field 'choices' must be"),
        ("arc_challenge", [{**ARC, "choices": {"text": ["a"], "label": ["A", "B"]}}], r":1: .*two lists of one length"),
        ("arc_challenge", [{**ARC, "choices": {"text": ["a", "b"], "label": ["A", "A"]}}], r":1: .*a different label"),
        ("openbookqa", [ARC], r":1: missing field 'question_stem'"),
        ("medqa", [{**MEDQA, "answer_idx": "C"}], r":1: field 'answer_idx' is 'C', which is none of the labels A, B"),
        ("medqa", [{**MEDQA, "options": ["x", "y"]}], r":1: field 'options' must be an object"),
        ("medqa", [{**MEDQA, "options": {"A": "x"}}], r":1: a question must have two options at least"),
        ("strategyqa", [{**STRATEGY, "answer": "maybe"}], r":1: field 'answer' must be true or false, not 'maybe'"),
        ("strategyqa", [{**STRATEGY, "answer": None}], r":1: missing field 'answer'"),
    ],
)
def test_a_file_at_fault_is_named_with_its_line(jsonl: Write, task: str, lines: list[object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_task(task, jsonl(*lines))


def test_a_missing_file_and_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        load_task("gsm8k", str(tmp_path / "none.jsonl"))
    table = tmp_path / "rows.csv"
    table.write_text("question,answer\n")
    with pytest.raises(DataError, match=r"rows\.csv: not a known format"):
        load_task("gsm8k", str(table))


def test_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: not UTF-8"):
        load_task("gsm8k", str(path))


def test_line_separators_inside_a_string_end_no_line(jsonl: Write) -> None:
    line = '{"question": "one\u2028two\u0085three", "answer": "#### 4"}'
    (row,) = load_task("gsm8k", jsonl(line)).rows()
    assert row.data["question"] == "one\u2028two\u0085three"


def test_parquet_reads_as_json_lines_do(tmp_path: Path, jsonl: Write) -> None:
    # Parquet gives each struct the fields of all rows: the four-option row comes back with E: null.
    rows = [
        MEDQA,
        {
            **MEDQA,
            "question": "Five?",
            "options": {"A": "v", "B": "w", "C": "x", "D": "y", "E": "z"},
            "answer_idx": "E",
        },
    ]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    from_parquet, from_lines = load_task("medqa", str(path)), load_task("medqa", jsonl(*rows))
    assert [from_parquet.prompt(row) for row in from_parquet.rows()] == [
        from_lines.prompt(row) for row in from_lines.rows()
    ]
    assert [from_parquet.gold(row) for row in from_parquet.rows()] == ["A", "E"]


def test_broken_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(gzip.compress(b"not parquet"))
    with pytest.raises(DataError, match=r"rows\.parquet: broken Parquet"):
        load_task("gsm8k", str(path))


def test_ids_are_the_datas_own_or_of_the_content_and_copies_get_their_own(jsonl: Write) -> None:
    other = {**GSM, "question": "6 times 8?"}
    first = load_task("gsm8k", jsonl(GSM, other, GSM, GSM)).rows()
    again = load_task("gsm8k", jsonl(other, GSM, name="again.jsonl")).rows()
    ids = [row.id for row in first]
    assert ids[2:] == [f"{ids[0]}#2", f"{ids[0]}#3"]
    # The content decides, not the place in the file.
    assert [row.id for row in again] == [ids[1], ids[0]]
    rows = load_task("arc_challenge", jsonl(ARC, ARC, {**ARC, "id": "q1#2"}, {**ARC, "id": None})).rows()
    assert [row.id for row in rows][:3] == ["q1", "q1#2", "q1#2#2"]
    assert re.fullmatch(r"[0-9a-f]{16}", rows[3].id)


def test_a_task_travels_without_its_rows(jsonl: Write) -> None:
    task = load_task("gsm8k", jsonl(GSM))
    sent = pickle.dumps(task)
    assert b"6 times 7" not in sent
    row = task.rows()[0]
    assert pickle.loads(sent).verify(row, "#### 42")


def test_the_hub_is_asked_for_the_split_only_when_the_rows_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str) -> list[dict[str, object]]:
        asked.append((name, config, split))
        return [GSM] if name == "openai/gsm8k" else []

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    task = load_task("gsm8k", split="test")
    assert not asked
    assert [row.split for row in task.rows()] == ["test"]
    assert asked == [("openai/gsm8k", "main", "test")]
    with pytest.raises(DataError, match="someone/else: holds no rows"):
        load_task("gsm8k", "someone/else").rows()


def test_a_hub_that_fails_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> object:
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"no/where: not a file here.*split 'train'.*ConnectionError: no route"):
        load_task("gsm8k", "no/where").rows()


def test_prompts_hold_the_question_the_options_and_the_form_of_the_answer(jsonl: Write) -> None:
    arc = load_task("arc_challenge", jsonl(ARC))
    prompt = arc.prompt(arc.rows()[0])
    assert prompt.startswith("Which is wet?\n1. rain\n2. sand\n\n")
    assert "step by step" in prompt
    assert prompt.endswith("X is one of 1, 2.")
    assert arc.messages(arc.rows()[0]) == [{"role": "user", "content": prompt}]
    gsm = load_task("gsm8k", jsonl(GSM, name="gsm.jsonl"))
    assert gsm.prompt(gsm.rows()[0]).endswith("#### <number>")
    assert gsm.solution(gsm.rows()[0]) == "6*7=42\n#### 42"


def test_a_model_that_repeats_the_prompt_has_given_no_answer(jsonl: Write) -> None:
    # The last words of each prompt name the form of an answer, which must not read as one.
    for name, record in (("arc_challenge", ARC), ("medqa", MEDQA), ("strategyqa", STRATEGY)):
        task = load_task(name, jsonl(record, name=f"{name}.jsonl"))
        row = task.rows()[0]
        assert task.extract(task.prompt(row), row) is None, name
