"""Every path, option and program that the Dockerfile names exists. No Docker runs here, so this stands in for a build."""

import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer

from orpo_ray import __version__
from orpo_ray.cli.app import app

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")


def _instructions(name: str) -> list[str]:
    return re.findall(rf"^{name}\s+(.*)$", DOCKERFILE, flags=re.MULTILINE)


def _copied() -> list[str]:
    copies = [shlex.split(copy) for copy in _instructions("COPY") if not copy.startswith("--from")]
    return [source.rstrip("/") for *sources, _ in copies for source in sources]


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    let_in = [line[1:] for line in (ROOT / "docker" / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"]
    assert _copied()
    for source in _copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in let_in), source


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint") or str(ROOT / ".tools" / "bin" / "hadolint")
    if not Path(program).exists():
        pytest.skip("hadolint is not here; `make tools` installs it")
    done = subprocess.run([program, str(ROOT / "docker" / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_scripts_options_exist() -> None:
    calls = re.findall(r"python (scripts/\S+)((?: --\S+(?: \"\$\{\w+\}\")?)*)", DOCKERFILE)
    assert len(calls) == 2
    for script, options in calls:
        assert script in _copied()
        done = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, check=True
        )
        for option in re.findall(r"--[a-z-]+", options):
            assert option in done.stdout


def test_what_the_scripts_import_is_copied_with_them() -> None:
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    for source in (path for path in _copied() if path.endswith(".py")):
        for module in re.findall(r"^(?:import|from) (\w+)", (ROOT / source).read_text(), flags=re.MULTILINE):
            assert module not in scripts or f"scripts/{module}.py" in _copied()


def test_both_stages_have_one_pinned_base() -> None:
    assert re.fullmatch(r"python:3\.1[1-4]\.\d+-slim-\w+", _instructions("ARG")[0].removeprefix("PYTHON_IMAGE="))
    assert [stage.split()[0] for stage in _instructions("FROM")] == ["${PYTHON_IMAGE}"] * 2


def test_it_does_not_run_as_root() -> None:
    assert _instructions("USER") == ["1000:1000"]


def test_it_is_labelled_with_the_packages_version() -> None:
    assert f"VERSION={__version__}" in _instructions("ARG")
    (label,) = _instructions("LABEL")
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in label


def test_new_code_is_a_layer_of_its_own_on_top_of_the_packages() -> None:
    """Some 4 GB of packages are not pushed again for a line of code."""
    stage = DOCKERFILE.split("FROM ")[2]
    assert "COPY orpo_ray/" not in DOCKERFILE.split("FROM ")[1]
    assert stage.index("COPY --from=packages") < stage.index("COPY orpo_ray/")


def test_the_entrypoint_gives_way_to_kuberays_and_takes_a_command() -> None:
    """KubeRay sets `command`, which replaces an entrypoint; `docker run IMAGE orpo-ray demo` replaces CMD alone."""
    assert _instructions("ENTRYPOINT") == ['["tini", "--"]']
    assert _instructions("CMD") == ['["orpo-ray", "--help"]']
    assert " tini" in DOCKERFILE.split("FROM ")[2]


@pytest.mark.parametrize("text", [DOCKERFILE, (ROOT / "docker" / "README.md").read_text()])
def test_the_command_lines_are_ours(text: str) -> None:
    commands = typer.main.get_command(app).commands
    used = {word for word in re.findall(r"\borpo-ray[\"',]* [\"']?(--help|[a-z]+)\b", text) if word != "orpo-ray"}
    assert used
    assert used <= {*commands, "--help"}


def test_every_accelerator_has_a_lock() -> None:
    (default,) = {value for value in _instructions("ARG") if value.startswith("ACCELERATOR=")}
    built = set(re.findall(r"ACCELERATOR=(\w+)", (ROOT / "docker" / "README.md").read_text()))
    for accelerator in {default.removeprefix("ACCELERATOR="), *built}:
        assert (ROOT / "requirements" / f"{accelerator}.lock").is_file()
