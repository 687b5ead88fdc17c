"""The report of a run: all that its files say, in one file that asks nobody for anything."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orpo_ray.config.layout import RunLayout
from orpo_ray.report.curves import MOST_POINTS, read_training
from orpo_ray.report.document import Code, Document, Figure, Paragraph, Section, to_html, to_markdown
from orpo_ray.report.full import full_report
from orpo_ray.report.grid import Grid, number
from tests.unit.report.finished import QUESTION, write_state
from tests.unit.report.traced import METRICS, write_traced_run


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return write_traced_run(tmp_path)


class _Tags(HTMLParser):
    """Every tag is closed, and everything that could fetch something is remembered."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_whole_and_asks_no_host(layout: RunLayout) -> None:
    text = to_html(full_report(layout, alive=False))
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert not tags.seen & {"script", "link", "img", "iframe", "object"}
    assert tags.addresses
    assert all(address.startswith("#") for address in tags.addresses)
    assert not re.search(r"url\(|@import", text)
    assert "prefers-color-scheme: dark" in text


def test_every_section_is_there(layout: RunLayout) -> None:
    document = full_report(layout, alive=False)
    assert [section.title for section in document.sections] == [
        "Outcome", "Training", "Data", "Time and cost", "Sample traces, before and after", "Environment", "Configuration",
    ]  # fmt: skip
    assert document.title == "Run toy"
    assert document.subtitle == "done; begun 2023-11-14 22:13 UTC, 4 min 34 s of work"


def test_numbers_are_those_of_the_files(layout: RunLayout) -> None:
    text = to_markdown(full_report(layout, alive=False))
    for line in (
        "| before training | 142/500 | 28.4 % (24.6–32.5) | 98.0 % | 41 |",
        "| teacher (greedy, test) | 463/500 | 92.6 % (90.0–94.6) |  |  |",
        "| margin | -0.25 |",
        "| 0 versions | 1 (100.0 %) |",
        "| rejected: wrong | 2 |",
        "name: toy",
        f"| {QUESTION} | 6 | [right] 5 + 3 = 8, 8 - 2 = 6. #### 6 |",
    ):
        assert line in text, line


def test_cost_is_time_by_what_was_asked(layout: RunLayout) -> None:
    record = json.loads(layout.state.read_text())
    record["phases"]["PREPARE"]["result"]["resources"] = {"TEACH": {"CPU": 4.0, "GPU": 2.0}}
    write_state(layout, phases=record["phases"])
    text = to_markdown(full_report(layout, alive=False))
    # 70.5 s on 4 CPUs and 2 GPUs; the teacher's 8 traces are 116 tokens of the student.
    assert "| TEACH | 1 min 10 s | 0.0783 | 0.0392 | 116 | – |" in text


def test_a_run_that_has_just_begun_has_a_report_too(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path, "toy")
    layout.run.mkdir()
    write_state(layout)
    document = full_report(layout, alive=True)
    assert [section.title for section in document.sections] == ["Outcome", "Environment", "Configuration"]
    assert "running" in document.subtitle
    to_html(document)


def test_a_failed_run_says_why(layout: RunLayout) -> None:
    write_state(layout, state="failed", error="TEACH failed: <no teacher>")
    text = to_html(full_report(layout, alive=False))
    assert "TEACH failed: &lt;no teacher&gt;" in text


def test_the_exported_data_card_is_taken_as_it_is(layout: RunLayout) -> None:
    layout.export.mkdir()
    first = to_markdown(full_report(layout, alive=False))
    assert "| licence of the data set | Apache-2.0 |" in first
    card = {
        "name": "toy", "task": {"name": "t", "origin": "o", "files": [], "licence": "CC0", "rows": {}}, "models": {},
        "teachers": [],
        "traces": {}, "epochs": [], "read": {"prompts": 2000},
    }  # fmt: skip
    (layout.export / "data_card.json").write_text(json.dumps(card))
    assert "| licence of the data set | CC0 |" in to_markdown(full_report(layout, alive=False))


def test_long_runs_are_thinned_to_means(tmp_path: Path) -> None:
    file, steps = tmp_path / "metrics.jsonl", 3 * MOST_POINTS + 1
    lines = [METRICS | {"step": step, "epoch": 1 + step // 1000, "loss": float(step)} for step in range(1, steps + 1)]
    del lines[1]["margin"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99')
    training = read_training(file)
    assert training is not None
    points = training.curve.points("loss")
    assert len(points) <= MOST_POINTS
    assert points[0] == (4.0, 2.5)
    assert points[-1][0] == steps
    assert training.sums["seconds"] == 2.0 * steps
    assert training.epochs[1]["trainer_tokens_per_s"] == 45.0
    assert training.staleness == {0: steps}


def test_a_quantity_that_some_steps_lack_keeps_its_place(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [METRICS | {"step": step} for step in (1, 2, 3)]
    del lines[0]["margin"], lines[2]["margin"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    training = read_training(file)
    assert training is not None
    assert training.curve.points("margin") == [(1.0, None), (2.0, -0.25), (3.0, None)]


def test_no_steps_are_no_training(tmp_path: Path) -> None:
    assert read_training(tmp_path / "metrics.jsonl") is None


def test_a_document_s_parts() -> None:
    parts = [Paragraph("a `b` <c>"), Figure("<svg></svg>", "f"), Figure("<svg></svg>", "g"), Code("x < y", "text")]
    document = Document("T", "S", [Section("One & two", [*parts, Grid(["", "n"], [["a|b", "1\n2"]])])])
    html, markdown = to_html(document), to_markdown(document)
    assert "<p>a <code>b</code> &lt;c&gt;</p>" in html
    assert html.count('<div class="figures">') == 1
    assert "<h2>One &amp; two</h2>" in html
    assert "| a\\|b | 1 2 |" in markdown
    assert "```text\nx < y\n```" in markdown
    assert "svg" not in markdown


@pytest.mark.parametrize(
    ("value", "words"), [(None, "–"), (0, "0"), (1234, "1,234"), (0.1234, "0.123"), (1234.56, "1,234.6"), (2.0, "2")]
)
def test_numbers_in_tables(value: float | None, words: str) -> None:
    assert number(value) == words
