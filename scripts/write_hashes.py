"""Write requirements/ACCELERATOR.hashes: the SHA-256 of every file of each release in the lock that this platform may take.

`make lock` runs this behind `write_lock.py`. `make setup HASHES=1` then has pip refuse any other file, as CI does where the
database of known vulnerabilities cannot be asked. PyTorch's CPU build is left out: it is not on PyPI, and not the same file on
every index that has it.
"""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from create_venv import TORCH_CPU, pins
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version
from pip._internal.models.index import PyPI

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# Files of the releases in {accelerator}.lock, by their SHA-256: `make setup{option} HASHES=1`. Made by `make lock`; do not edit.
"""
_JSON = "application/vnd.pypi.simple.v1+json"
_INTERPRETERS = ("py3", "py2.py3", "cp3")


def fits(filename: str, version: str) -> bool:
    """Whether a file is of that release, and one that pip might take on Linux on x86_64."""
    try:
        if filename.endswith(".whl"):
            _, found, _, tags = parse_wheel_filename(filename)
            return found == Version(version) and any(
                tag.interpreter.startswith(_INTERPRETERS)
                and (tag.platform == "any" or (tag.platform.endswith("x86_64") and "linux" in tag.platform))
                for tag in tags
            )
        _, found = parse_sdist_filename(filename)
        return found == Version(version)
    except (InvalidWheelFilename, InvalidSdistFilename):  # eggs and installers of old
        return False


def hashes(name: str, version: str) -> list[str]:
    """SHA-256 of the release's files, sorted."""
    request = urllib.request.Request(f"{PyPI.simple_url}/{name}/", headers={"Accept": _JSON})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files: list[dict[str, Any]] = json.load(answer)["files"]
    found = sorted({file["hashes"]["sha256"] for file in files if fits(file["filename"], version)})
    if not found:
        raise SystemExit(f"{name}=={version}: no file for Linux on x86_64 that has a hash")
    return found


def line(pin: str) -> str:
    """A pin with its hashes, as pip reads them."""
    name, _, version = pin.replace("===", "==").partition("==")
    return " \\\n    ".join([pin, *(f"--hash=sha256:{digest}" for digest in hashes(name, version))])


def main() -> None:
    parser = argparse.ArgumentParser(description="Write requirements/ACCELERATOR.hashes from its lock.")
    parser.add_argument("accelerator", choices=("cpu", "cuda"))
    accelerator = parser.parse_args().accelerator
    pinned = pins((ROOT / "requirements" / f"{accelerator}.lock").read_text())
    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(line, (pin for pin in pinned if not pin.endswith(TORCH_CPU))))
    option = "" if accelerator == "cpu" else f" ACCELERATOR={accelerator}"
    file = ROOT / "requirements" / f"{accelerator}.hashes"
    file.write_text(HEADER.format(accelerator=accelerator, option=option) + "\n".join(lines) + "\n")
    print(f"{file.relative_to(ROOT)}: {len(lines)} packages")


if __name__ == "__main__":
    main()
