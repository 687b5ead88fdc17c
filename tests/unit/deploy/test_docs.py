"""Commands, options and paths that the pages about clusters name are there."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from orpo_ray.cli.app import app
from orpo_ray.config import RunConfig

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / name for name in ("docs/cluster.md", "deploy/README.md", "docker/README.md")]
each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.name if page.parent.name == "docs" else str(page.parent.name)
)


def command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and what is left of them."""
    found: Any = typer.main.get_command(app)
    while hasattr(found, "commands") and words and words[0] in found.commands:
        found, words = found.commands[words[0]], words[1:]
    return found, words


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    used = re.findall(r"(?<![\w/-])(?<!-n )(?<!--namespace )orpo-ray ((?:[a-z]+ ?)+[^`\n#|>]*)", text)
    checked = 0
    for line in used:
        found, rest = command(line.split())
        if hasattr(found, "commands"):
            continue  # "orpo-ray is …", not a command
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in rest:
            if word.startswith("--"):
                assert word in known, (line, word)
        checked += 1
    assert checked


@each_page
def test_paths_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"(?<![\w/.-])((?:deploy|docker|tests|docs|requirements|scripts)/[\w./-]*\w)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / path).exists(), path


@each_page
def test_options_of_the_configuration_exist(page: Path) -> None:
    sections = RunConfig.model_fields
    for section, option in re.findall(r"`(\w+)\.([a-z_]+)(?:\.\w+)?[`:]", page.read_text()):
        if section in sections:
            model = sections[section].annotation
            known = set(model.model_fields) | {field.alias for field in model.model_fields.values()}  # type: ignore[union-attr]
            assert option in known, f"{section}.{option}"
