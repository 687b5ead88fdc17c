"""Files of JSON lines as they are passed on."""

import json
from pathlib import Path

import pytest

from orpo_ray.service.lines import last_lines, read_page
from orpo_ray.service.schemas import Lines

KINDS = ["step", "stepping", "step", "loaded", "step"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "events.jsonl"
    written.write_text("".join(json.dumps({"kind": kind, "at": at}) + "\n" for at, kind in enumerate(KINDS)))
    return written


@pytest.mark.parametrize(("after", "limit"), [(0, 2), (0, 10), (10**6, 3)])
def test_a_page_is_the_json_that_the_schema_says(file: Path, after: int, limit: int) -> None:
    page = read_page(file, after, limit)
    told = Lines.model_validate_json(page.json())
    assert told.items == [{"kind": kind, "at": at} for at, kind in enumerate(KINDS[:limit])]
    assert (told.next, told.more) == (page.places[-1], limit < len(KINDS))


def test_a_page_of_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert json.loads(read_page(tmp_path / "none.jsonl", 0, 5).json()) == {"items": [], "next": 0, "more": False}


def test_lines_of_one_kind_are_those_alone(file: Path) -> None:
    assert [line["at"] for line in last_lines(file, kinds={"step"})] == [0, 2, 4]


def test_a_word_in_another_field_is_not_taken_for_the_kind(file: Path) -> None:
    with file.open("a") as more:
        more.write('{"kind": "other", "of": "step"}\n')
    assert len(last_lines(file, kinds={"step"})) == 3
