"""Make `.venv` with the pinned versions of requirements/*.lock and this project, and do nothing where it is there.

`make setup` runs this; see `--help` for the options. What the environment was made from is noted in it
(`.venv/orpo-ray-setup.json`). A second call compares and stops; an interrupted one goes on.

Annotations are quoted where an old Python would trip over them before it is told that it is too old.
"""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
import time
import venv
from enum import Enum
from pathlib import Path

import check_machine

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
NOTE = VENV / "orpo-ray-setup.json"
# PyTorch's own index of CPU builds, for machines on which pip's configured index lacks them, as PyPI does.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_CPU = "+cpu"


class Step(Enum):
    """What is left to do, from the most to the least."""

    CREATE = "a new environment"
    PACKAGES = "the pinned packages"
    PROJECT = "this project itself"
    NOTHING = "nothing"


def origin(root: Path, accelerator: str, tests: bool = True) -> "dict[str, str]":
    """What an environment is made from: a change of one of these makes it out of date."""
    return {
        "tests": "with" if tests else "without",
        "root": str(root),
        "python": f"{platform.python_version()} {sys.implementation.name}",
        "accelerator": accelerator,
        "lock": _digest(root / "requirements" / f"{accelerator}.lock"),
        "project": _digest(root / "pyproject.toml"),
    }


def next_step(wanted: "dict[str, str]", noted: "dict[str, str] | None", has_python: bool) -> Step:
    """The first step to take, given what is `wanted` and what the environment's note says (None: no note).

    An environment without a note is an interrupted one, or one made by hand: its packages are brought to the pinned
    versions in place. One for another place, Python or accelerator is made anew.
    """
    if not has_python:
        return Step.CREATE
    if noted is None:
        return Step.PACKAGES
    if any(noted.get(key) != wanted[key] for key in ("root", "python", "accelerator")):
        return Step.CREATE
    if noted.get("lock") != wanted["lock"] or noted.get("tests", "with") != wanted.get("tests", "with"):
        return Step.PACKAGES
    return Step.PROJECT if noted.get("project") != wanted["project"] else Step.NOTHING


def read_note(note: Path) -> "dict[str, str] | None":
    """What the environment was made from; None where no note lies there or it cannot be read."""
    try:
        noted: dict[str, str] = json.loads(note.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return noted


def pins(lock: str) -> "list[str]":
    """The requirement lines of a lock's text."""
    return [line for line in lock.splitlines() if line and not line.startswith("#")]


def runtime_pins(lines: "list[str]", test_only: str) -> "list[str]":
    """The pins of a lock without those that only the tests need, which `test_only` names one a line."""
    left_out = set(pins(test_only))
    return [line for line in lines if line.split("=")[0] not in left_out]


def install_packages(accelerator: str, torch_index: str, tests: bool = True, hashes: bool = False) -> None:
    """Bring every package to its pinned version, fetching nothing that is not in the lock.

    With `hashes`, pip takes only the files that requirements/*.hashes knows; PyTorch's CPU build is not among them.
    """
    lines = pins((ROOT / "requirements" / f"{accelerator}.lock").read_text())
    if not tests:
        lines = runtime_pins(lines, (ROOT / "requirements" / "test-only.txt").read_text())
    # Two packages come as source. They are built with the lock's own setuptools, and before torch is there, since
    # DeepSpeed's build looks into an installed torch.
    known = hashed((ROOT / "requirements" / f"{accelerator}.hashes").read_text()) if hashes else {}
    _pip_pins([line for line in lines if line.startswith("setuptools==")], known)
    _pip_pins([line for line in lines if not line.startswith("torch=")], known)
    (torch,) = (line for line in lines if line.startswith("torch="))
    if torch.endswith(TORCH_CPU):
        _install_torch_cpu(torch, torch_index)
    else:
        _pip_pins([torch], known)


def hashed(text: str) -> "dict[str, str]":
    """The pins of a file with hashes, each with what stands behind it there."""
    lines = pins(text.replace(" \\\n", " "))
    return {line.split()[0]: line for line in lines}


def _pip_pins(lines: "list[str]", known: "dict[str, str]") -> None:
    if not known:
        _pip(*lines)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(known[line] for line in lines) + "\n")
        file.flush()
        _pip("--require-hashes", "--requirement", file.name)


def _install_torch_cpu(torch: str, torch_index: str) -> None:
    plain = subprocess.run(_pip_command(torch), capture_output=True, text=True)
    if plain.returncode == 0:
        return
    print(f"pip's own index has no {torch}; taking it from {torch_index}", flush=True)
    if subprocess.run(_pip_command(torch, "--index-url", torch_index)).returncode != 0:
        sys.exit(
            f"{torch} could not be installed, neither from pip's own index nor from {torch_index}.\n"
            "Name an index that has it: make setup TORCH_INDEX=URL\n"
            f"pip's own index said: {plain.stderr.strip()}"
        )


def _pip(*arguments: str) -> None:
    if subprocess.run(_pip_command(*arguments)).returncode != 0:
        sys.exit("pip could not install the pinned packages; its message is above. Run the command again to go on.")


def _pip_command(*arguments: str) -> "list[str]":
    quiet = [] if sys.stdout.isatty() else ["-qq"]
    shared = ["install", *quiet, "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    return [str(VENV / "bin" / "python"), "-m", "pip", *shared, *arguments]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make .venv with the pinned versions; nothing where it is there.")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), help="default: what .venv was made for, else cpu")
    parser.add_argument("--torch-index", default=TORCH_INDEX, help="where torch's CPU build comes from if pip lacks it")
    parser.add_argument("--packages-only", action="store_true", help="leave this project out: a layer of an image")
    parser.add_argument("--without-tests", action="store_true", help="leave out what only the tests need: an image")
    parser.add_argument(
        "--hashes", action="store_true", help="take only files whose SHA-256 is in requirements/*.hashes"
    )
    arguments = parser.parse_args()

    noted = read_note(NOTE)
    accelerator = arguments.accelerator or (noted or {}).get("accelerator", "cpu")
    wanted = origin(ROOT, accelerator, not arguments.without_tests)
    step = next_step(wanted, noted, (VENV / "bin" / "python").exists())
    if step is Step.NOTHING:
        return
    if step is not Step.PROJECT:
        lacks = check_machine.problems(check_machine.survey(ROOT), accelerator)
        if lacks:
            sys.exit("This machine is not ready for the set-up:\n" + "\n".join(f"- {lack}" for lack in lacks))

    start = time.monotonic()
    print(f"Installing {step.value} into {VENV.name} ({accelerator}) ...", flush=True)
    NOTE.unlink(missing_ok=True)
    if step is Step.CREATE:
        venv.create(VENV, clear=True, symlinks=True, with_pip=True)
    if step is not Step.PROJECT:
        install_packages(accelerator, arguments.torch_index, not arguments.without_tests, arguments.hashes)
    if arguments.packages_only:
        wanted["project"] = ""  # the next call installs it
    else:
        _pip("--editable", str(ROOT))
    NOTE.write_text(json.dumps(wanted, indent=2) + "\n")
    print(f"Ready after {time.monotonic() - start:.0f} s.", flush=True)


if __name__ == "__main__":
    main()
