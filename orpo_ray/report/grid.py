"""A table of words, for Markdown and HTML alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Grid:
    """The first column names the rows; the others are numbers, or texts where `numbers` is False."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True

    def markdown(self) -> str:
        """As a GitHub-flavoured table. A cell's line ends become spaces."""
        rule = ["---", *(["---:" if self.numbers else "---"] * (len(self.head) - 1))]
        lines = [self.head, rule, *self.rows]
        return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)

    def html(self) -> str:
        """As a `<table>`; cells are escaped."""
        kind = ' class="numbers"' if self.numbers else ""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.head)
        body = "".join(
            f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
            for row in self.rows
        )
        return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def number(value: float | None) -> str:
    """As `1,234`, `0.123` or `–` where there is none."""
    if value is None:
        return "–"
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:,.1f}"
