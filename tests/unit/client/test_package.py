"""What is sent along with a run, and what stays here."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.client import package
from orpo_ray.client.package import make_package
from orpo_ray.config import parse_config
from orpo_ray.errors import InputError


def names(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        return opened.namelist()


def test_code_goes_along_and_secrets_stay(tmp_path: Path, config: dict[str, Any]) -> None:
    directory = tmp_path / "project"
    for name in (
        "mine/task.py",
        ".env",
        ".git/config",
        "mine/__pycache__/task.pyc",
        "runs/a/run.json",
        "run.yaml",
        "b.txt",
    ):
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "outside").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "outside")
    checked = parse_config(config | {"storage": {"path": str(directory / "runs")}})
    made = make_package(checked, directory)
    assert names(made.content) == ["run.yaml", "b.txt", "mine/task.py"]
    with zipfile.ZipFile(io.BytesIO(made.content)) as opened:
        assert b"name: toy" in opened.read("run.yaml")  # not the directory's own


def test_the_name_is_a_function_of_the_content(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "a.py").write_text("1")
    checked = parse_config(config)
    before = make_package(checked, tmp_path)
    (tmp_path / "a.py").touch()
    assert make_package(checked, tmp_path) == before
    (tmp_path / "a.py").write_text("2")
    assert make_package(checked, tmp_path).name != before.name


def test_a_directory_that_is_too_large(tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "LARGEST_PACKAGE", 2 << 20)
    (tmp_path / "model.safetensors").write_bytes(bytes(3 << 20))
    with pytest.raises(InputError, match="holds more than 2 MiB"):
        make_package(parse_config(config), tmp_path)


def test_no_directory(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is no directory"):
        make_package(parse_config(config), tmp_path / "none")
