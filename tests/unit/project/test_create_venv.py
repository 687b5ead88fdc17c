"""What the set-up does next, given what it finds; and what it does with pip, given a pip that only notes its calls."""

import json
import sys
from pathlib import Path

import create_venv
import pytest
from create_venv import Step, next_step, origin, pins, read_note

WANTED = {"root": "/a", "python": "3.11.7 cpython", "accelerator": "cpu", "lock": "1", "project": "2"}


@pytest.mark.parametrize(
    ("noted", "step"),
    [
        (WANTED, Step.NOTHING),
        (None, Step.PACKAGES),
        ({**WANTED, "root": "/b"}, Step.CREATE),
        ({**WANTED, "python": "3.12.1 cpython"}, Step.CREATE),
        ({**WANTED, "accelerator": "cuda"}, Step.CREATE),
        ({**WANTED, "lock": "9"}, Step.PACKAGES),
        ({**WANTED, "lock": "9", "project": "9"}, Step.PACKAGES),
        ({**WANTED, "project": "9"}, Step.PROJECT),
        ({**WANTED, "tests": "with"}, Step.NOTHING),
        ({**WANTED, "tests": "without"}, Step.PACKAGES),
    ],
)
def test_the_first_step_is_the_least_that_brings_it_up_to_date(noted: dict[str, str] | None, step: Step) -> None:
    assert next_step(WANTED, noted, has_python=True) is step


def test_without_a_python_in_it_the_environment_is_made() -> None:
    assert next_step(WANTED, WANTED, has_python=False) is Step.CREATE


def test_an_environment_without_tests_is_another() -> None:
    assert next_step({**WANTED, "tests": "without"}, WANTED, has_python=True) is Step.PACKAGES
    assert next_step({**WANTED, "tests": "without"}, {**WANTED, "tests": "without"}, has_python=True) is Step.NOTHING


def _project(root: Path, lock: str) -> Path:
    (root / "requirements").mkdir()
    (root / "requirements" / "cpu.lock").write_text(lock)
    (root / "pyproject.toml").write_text("[project]\n")
    return root


def test_a_changed_lock_or_project_changes_the_origin(tmp_path: Path) -> None:
    root = _project(tmp_path, "a==1\n")
    before = origin(root, "cpu")
    assert origin(root, "cpu") == before
    (root / "requirements" / "cpu.lock").write_text("a==2\n")
    assert origin(root, "cpu")["lock"] != before["lock"]
    (root / "pyproject.toml").write_text("[project]\nname = 'b'\n")
    assert origin(root, "cpu")["project"] != before["project"]


def test_a_note_that_cannot_be_read_is_no_note(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    assert read_note(note) is None
    note.write_text('{"root": ')
    assert read_note(note) is None
    note.write_text(json.dumps(WANTED))
    assert read_note(note) == WANTED


def test_comments_and_blank_lines_are_no_pins() -> None:
    assert pins("# made by\n\na==1\nb==2\n") == ["a==1", "b==2"]


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose pip notes its arguments in `calls` and fails for what the file `refused` names."""
    root = _project(tmp_path, "deepspeed==1\nsetuptools==78\ntorch==2.13.0+cpu\nzipp==3\n")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{sys.executable}\n"
        "import sys, pathlib\n"
        f"root = pathlib.Path({str(root)!r})\n"
        "call = ' '.join(sys.argv[1:])\n"
        "with (root / 'calls').open('a') as calls: print(call, file=calls)\n"
        "refused = (root / 'refused').read_text().splitlines() if (root / 'refused').exists() else []\n"
        "sys.exit(next((f'no such release: {call}' for end in refused if call.endswith(end)), 0))\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(create_venv, "ROOT", root)
    monkeypatch.setattr(create_venv, "VENV", root / ".venv")
    return root


def _installed(root: Path) -> list[str]:
    return [call.split("--no-build-isolation ")[1] for call in (root / "calls").read_text().splitlines()]


def test_source_packages_are_built_with_the_pinned_setuptools_and_before_torch(pip: Path) -> None:
    create_venv.install_packages("cpu", "https://index.example")
    assert _installed(pip) == ["setuptools==78", "deepspeed==1 setuptools==78 zipp==3", "torch==2.13.0+cpu"]
    assert all("--no-deps" in call for call in (pip / "calls").read_text().splitlines())


def test_an_image_leaves_out_what_only_the_tests_need(pip: Path) -> None:
    (pip / "requirements" / "test-only.txt").write_text("# made by\nzipp\n")
    create_venv.install_packages("cpu", "https://index.example", tests=False)
    assert _installed(pip) == ["setuptools==78", "deepspeed==1 setuptools==78", "torch==2.13.0+cpu"]


def test_torch_comes_from_pytorchs_index_where_pips_own_lacks_it(pip: Path) -> None:
    (pip / "refused").write_text("--no-build-isolation torch==2.13.0+cpu\n")
    create_venv.install_packages("cpu", "https://index.example")
    assert _installed(pip)[2:] == ["torch==2.13.0+cpu", "torch==2.13.0+cpu --index-url https://index.example"]


def test_where_no_index_has_torch_the_message_says_what_to_set(pip: Path) -> None:
    (pip / "refused").write_text("torch==2.13.0+cpu\nhttps://index.example\n")
    with pytest.raises(SystemExit, match="make setup TORCH_INDEX=URL") as stop:
        create_venv.install_packages("cpu", "https://index.example")
    assert "https://index.example" in str(stop.value)
    assert "no such release" in str(stop.value)


def test_a_package_that_cannot_be_installed_ends_the_setup(pip: Path) -> None:
    (pip / "refused").write_text("zipp==3\n")
    with pytest.raises(SystemExit, match="could not install the pinned packages"):
        create_venv.install_packages("cpu", "https://index.example")
    assert "torch" not in _installed(pip)[-1]
