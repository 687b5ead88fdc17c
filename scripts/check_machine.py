"""Says what this machine lacks for the set-up, one sentence for each lack, before anything is downloaded.

`python3 scripts/check_machine.py [--accelerator cpu|cuda]` exits with 0 where all is there and with 1 where something
is missing. It needs nothing but a Python's standard library, and runs under Pythons from 3.6 on (hence the quoted
annotations), or it could not say that one is too old.
"""

import argparse
import ctypes
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PYTHON_MIN, PYTHON_END = (3, 11), (3, 15)
# The environment, measured: 4.2 GB on a CPU. The rest is compiled operators, Ray's spill files and one run.
DISK_GIB = {"cpu": 6.0, "cuda": 20.0}
# Each CPU engine holds about 2 GiB and each train worker about 1; "8 GB" machines report a little less than 8 GiB.
MEMORY_GIB = 7.5
GIB = 2**30


class Machine(NamedTuple):
    """What the set-up looks at."""

    python: "tuple[int, int]"
    executable: str
    missing_modules: "tuple[str, ...]"
    has_headers: bool
    system: str
    architecture: str
    compiler: str
    has_compiler: bool
    has_libnuma: bool
    free_disk: float  # GiB
    memory: float  # GiB, after a container's limit


def survey(root: Path) -> Machine:
    """Look at the machine that runs this, with its disk under `root`."""
    compiler = os.environ.get("CXX", "c++")
    return Machine(
        python=sys.version_info[:2],
        executable=sys.executable,
        missing_modules=tuple(name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None),
        has_headers=(Path(sysconfig.get_paths()["include"]) / "Python.h").is_file(),
        system=platform.system(),
        architecture=platform.machine(),
        compiler=compiler,
        has_compiler=shutil.which(compiler) is not None,
        has_libnuma=_loads("libnuma.so.1"),
        free_disk=shutil.disk_usage(root).free / GIB,
        memory=memory_bytes() / GIB,
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def memory_bytes(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: the machine's, or its container's limit (cgroup v2 or v1) if lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        if limit.is_file() and limit.read_text().strip().isdigit():
            total = min(total, int(limit.read_text()))
    return total


def problems(machine: Machine, accelerator: str) -> "list[str]":
    """One sentence for each lack: what was found, what is needed, what to do."""
    found = []
    version = ".".join(map(str, machine.python))
    if not PYTHON_MIN <= machine.python < PYTHON_END:
        found.append(
            f"Python: {machine.executable} is {version}; 3.11 to 3.14 is needed. "
            "Install one and name it: make PYTHON=python3.11 ..."
        )
    if machine.missing_modules:
        found.append(
            f"Python: {machine.executable} lacks {' and '.join(machine.missing_modules)}, so it cannot make a virtual "
            f"environment. On Debian or Ubuntu: apt-get install python{version}-venv"
        )
    if not machine.has_headers:
        found.append(
            f"Python: Python.h of {machine.executable} is missing, and DeepSpeed compiles against it. "
            f"On Debian or Ubuntu: apt-get install python{version}-dev"
        )
    if (machine.system, machine.architecture) != ("Linux", "x86_64"):
        found.append(
            f"Platform: this is {machine.system} on {machine.architecture}; the pinned versions are for Linux on "
            "x86_64. Use such a machine, or the image in docker/"
        )
    if not machine.has_compiler:
        found.append(
            f"Compiler: no C++ compiler `{machine.compiler}` on the PATH, and DeepSpeed compiles with one. "
            "On Debian or Ubuntu: apt-get install g++ (or set CXX to yours)"
        )
    if accelerator == "cpu" and not machine.has_libnuma:
        found.append(
            "Library: libnuma.so.1 is missing, and vLLM's CPU kernels are linked with it. "
            "On Debian or Ubuntu: apt-get install libnuma1"
        )
    if machine.free_disk < DISK_GIB[accelerator]:
        found.append(
            f"Disk: {machine.free_disk:.1f} GiB free here; the environment and a run take about "
            f"{DISK_GIB[accelerator]:g} GiB. Free some, or clone to a larger disk"
        )
    if machine.memory < MEMORY_GIB:
        found.append(
            f"Memory: {machine.memory:.1f} GiB here; at least 8 GB is needed, for two engines and two train workers. "
            "Use a larger machine, or raise the container's limit"
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Say what this machine lacks for the set-up.")
    parser.add_argument("--accelerator", choices=sorted(DISK_GIB), default="cpu")
    found = problems(survey(ROOT), parser.parse_args().accelerator)
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
