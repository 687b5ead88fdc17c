"""The documentation's site: every option, command and public name is in its reference, and mkdocs finds no fault."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import site_pages
import typer

import orpo_ray.client
from orpo_ray.cli.app import app
from orpo_ray.config import parse_config
from orpo_ray.config.section import flatten

ROOT = Path(__file__).parents[3]
MKDOCS = ROOT / ".docs" / "bin" / "mkdocs"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return site_pages.pages()


def test_every_option_is_in_the_reference(pages: dict[str, str]) -> None:
    text = pages["docs/reference/configuration.md"]
    config = parse_config({"task": {"name": "arithmetic"}, "teacher": {"model": "t"}, "student": {"model": "s"}})
    for name in flatten(config.model_dump(by_alias=True)):
        assert f"| `{name}` |" in text or name == "more_teachers", name
    for name in ("train.lora.rank", "task.judge.votes", "train.lambda"):  # where a section is not set by default
        assert f"| `{name}` |" in text
    assert "| `train.lora.rank` | `16` | Rank of each adapter. ≥ 1, ≤ 512. |" in text


def test_every_command_and_its_options_are_in_the_reference(pages: dict[str, str]) -> None:
    text = pages["docs/reference/commands.md"]

    def check(command: Any, words: str) -> None:
        for name, found in command.commands.items():
            if hasattr(found, "commands"):
                check(found, f"{words} {name}")
                continue
            part = re.search(rf"(?ms)^## {words} {name}$(.*?)(?=^## |\Z)", text)
            assert part, name
            for parameter in found.params:
                for option in parameter.opts if parameter.param_type_name == "option" else ():
                    assert option in part[1], (name, option)

    check(typer.main.get_command(app), "orpo-ray")


def test_every_public_name_is_in_the_reference(pages: dict[str, str]) -> None:
    text = pages["docs/reference/python.md"]
    for name in orpo_ray.client.__all__:
        assert f"\n### {name}\n" in text
    assert not re.search(r"0x[0-9a-f]{6}|/home/|site-packages", text)


def test_every_page_has_one_place_in_the_navigation(pages: dict[str, str]) -> None:
    named = [page for section in site_pages.navigation(pages) for paths in section.values() for page in paths]
    assert sorted(named) == sorted(pages)
    assert {str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md")} <= set(named)


def test_a_page_that_nobody_ordered_comes_last_in_how_to() -> None:
    sections = site_pages.navigation(["README.md", "docs/method.md", "docs/new.md"])
    assert sections[1] == {"How to": ["docs/new.md"]}


def test_the_same_pages_come_out_each_time(pages: dict[str, str], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "7", "COLUMNS": "50"}
    command = [sys.executable, str(ROOT / "scripts" / "site_pages.py"), str(tmp_path / "other")]
    subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=60)
    written = {path: (tmp_path / "other" / "pages" / path).read_text() for path in pages}
    assert written == pages


def test_mkdocs_finds_no_fault_and_the_site_asks_no_other_host(tmp_path: Path) -> None:
    if not MKDOCS.exists():
        pytest.skip("mkdocs is not here: make docs-tools")
    site_pages.write(tmp_path / "docs")
    command = [
        str(MKDOCS),
        "build",
        "--strict",
        "-f",
        str(tmp_path / "docs" / "mkdocs.yml"),
        "-d",
        str(tmp_path / "site"),
    ]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    for file in (tmp_path / "site").rglob("*"):
        if file.suffix == ".html":
            text = file.read_text()
            loaded = re.findall(
                r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)", text
            )
            assert not loaded, file
            assert 'class="mermaid"' not in text, "mermaid would be fetched from a CDN"
        elif file.suffix == ".css":
            assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", file.read_text()), file
    assert (tmp_path / "site" / "docs" / "reference" / "configuration.html").exists()
