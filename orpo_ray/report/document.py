"""A document of sections, written as one HTML file or as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

import jinja2

from orpo_ray.report.grid import Grid


@dataclass(frozen=True)
class Paragraph:
    """Plain text; `words` between backticks are code."""

    text: str


@dataclass(frozen=True)
class Figure:
    """A plot. Markdown has no place for it: what it shows is in a table beside it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Code:
    """Text as it is."""

    text: str
    language: str


Part = Paragraph | Figure | Code | Grid


@dataclass(frozen=True)
class Section:
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Document:
    title: str
    subtitle: str
    sections: Sequence[Section]


def to_html(document: Document) -> str:
    """One file that needs no other: styles and plots are in it, it has no script, and asks no host for anything."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, keep_trailing_newline=True)
    template = environment.from_string((files("orpo_ray.report") / "page.jinja").read_text(encoding="utf-8"))
    sections = [
        {"title": section.title, "id": _anchor(section.title), "body": _body(section.parts)}
        for section in document.sections
    ]
    return template.render(title=document.title, subtitle=document.subtitle, sections=sections)


def to_markdown(document: Document) -> str:
    """The same without the plots."""
    blocks = [f"# {document.title}", document.subtitle]
    for section in document.sections:
        blocks += [f"## {section.title}", *(text for part in section.parts if (text := _markdown(part)))]
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def _body(parts: Sequence[Part]) -> str:
    """Plots that follow each other stand side by side."""
    html, figures = list[str](), list[str]()
    for part in [*parts, None]:
        if isinstance(part, Figure):
            figures.append(f"<figure><figcaption>{escape(part.caption)}</figcaption>{part.svg}</figure>")
            continue
        if figures:
            html.append(f'<div class="figures">{"".join(figures)}</div>')
            figures = []
        if isinstance(part, Grid):
            html.append(part.html())
        elif isinstance(part, Paragraph):
            html.append("<p>" + re.sub("`([^`]+)`", r"<code>\1</code>", escape(part.text)) + "</p>")
        elif isinstance(part, Code):
            html.append(f"<pre><code>{escape(part.text)}</code></pre>")
    return "".join(html)


def _markdown(part: Part) -> str | None:
    match part:
        case Grid():
            return part.markdown()
        case Paragraph():
            return part.text
        case Code():
            return f"```{part.language}\n{part.text.rstrip()}\n```"
        case Figure():
            return None


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
