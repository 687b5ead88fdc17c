"""The page's files: what a browser must fetch before it can show anything, and from where."""

import re
from pathlib import Path

import pytest

from orpo_ray.service.app import PAGE

DOCUMENT = (PAGE / "index.html").read_text(encoding="utf-8")
MODULES = sorted(file.name for file in PAGE.glob("*.js"))


def test_every_module_is_asked_for_with_the_document() -> None:
    """One that is found only by reading another costs a round trip more."""
    preloaded = re.findall(r'<link rel="modulepreload" href="([^"]+)">', DOCUMENT)
    assert sorted([*preloaded, "main.js"]) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_what_is_there(name: str) -> None:
    imported = re.findall(r'^import .* from "\./([^"]+)";$', (PAGE / name).read_text(encoding="utf-8"), re.M)
    assert set(imported) <= set(MODULES)


@pytest.mark.parametrize("file", sorted(PAGE.iterdir()), ids=lambda file: file.name)
def test_nothing_is_fetched_from_another_host(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # a namespace, never fetched
    assert not re.search(r"""(?:https?:)?//[a-z0-9-]+\.[a-z]""", text)
