"""This machine: compiler, memory, /dev/shm, files, GPUs, ports."""

import os
import resource
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from orpo_ray.config import RunConfig
from orpo_ray.doctor.finding import Finding, fault, ok, warning
from orpo_ray.phases.needs import GIB, count_parameters, machine_memory, required_resources

# Two CPU engines and two train workers of a small model, as the demo has them.
_LEAST_MEMORY = 15 * GIB // 2
_OBJECT_STORE = 400 << 20
_FILES = 8192
_COMPILE_S, _SMI_S = 60, 20
_PROGRAM = "#include <Python.h>\n#include <atomic>\nint main() { return 0; }\n"


def check_machine(config: RunConfig | None) -> list[Finding]:
    """Everything about this machine; `config` says what a run would ask of it."""
    gpus = find_gpus()
    return [
        check_compiler(),
        check_memory(config, machine_memory()),
        check_shared_memory(Path("/dev/shm")),
        check_files(),
        *check_gpus(config, gpus),
        *check_ports(config),
    ]


def check_compiler() -> Finding:
    """DeepSpeed compiles its collective with it at the first start: it is made to compile something like it."""
    name = os.environ.get("CXX", "c++")
    cure = "install g++, ninja and Python's headers (on Debian or Ubuntu: apt-get install g++ python3-dev)"
    if shutil.which(name) is None:
        return fault("compiler", f"no `{name}` on the PATH", cure)
    command = [name, "-std=c++17", "-fsyntax-only", f"-I{sysconfig.get_paths()['include']}", "-x", "c++", "-"]
    try:
        ended = subprocess.run(command, input=_PROGRAM, capture_output=True, text=True, timeout=_COMPILE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return fault("compiler", f"`{name}` does not work: {error}", cure)
    if ended.returncode:
        said = next((line for line in ended.stderr.splitlines() if "error" in line), ended.stderr.strip()[:200])
        return fault("compiler", f"`{name}` fails: {said}", cure)
    if shutil.which("ninja") is None:
        return fault("compiler", "no `ninja` on the PATH", "pip install ninja, and put its directory on the PATH")
    return ok("compiler", name)


def check_memory(config: RunConfig | None, there: int) -> Finding:
    """Against what the greediest phase of the run asks, if all of it were here."""
    least, what = _LEAST_MEMORY, "the demo"
    if config is not None:
        needs = required_resources(config, count_parameters(config.student.model))
        least, what = max(int(phase["memory"]) for phase in needs.values()), config.name
    found = f"{there / GIB:.1f} GiB; {what} asks for about {least / GIB:.1f} GiB on CPUs"
    if there < least:
        cure = "lower resources.samplers or train.workers, raise the container's limit, or take a larger machine or a cluster"
        return warning("memory", found, cure)
    return ok("memory", found)


def check_shared_memory(directory: Path) -> Finding:
    """Ray's object store lies there, and gloo's and NCCL's buffers."""
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return fault("/dev/shm", f"cannot be looked at ({error.strerror})", "mount a tmpfs there")
    if free < _OBJECT_STORE:
        cure = "docker run --shm-size=4g; in Kubernetes an emptyDir of medium Memory at /dev/shm"
        return fault("/dev/shm", f"{free >> 20} MiB free, the object store alone takes {_OBJECT_STORE >> 20} MiB", cure)
    return ok("/dev/shm", f"{free / GIB:.1f} GiB free")


def check_files() -> Finding:
    """Ray opens many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        most = "as root in /etc/security/limits.conf" if hard < _FILES else "before you start the run"
        return warning("open files", f"at most {soft}", f"ulimit -n {_FILES} {most}")
    return ok("open files", "unlimited" if soft == resource.RLIM_INFINITY else f"at most {soft}")


def find_gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, as nvidia-smi tells them; none where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in ended.stdout.splitlines() if line.strip()] if ended.returncode == 0 else []


def check_gpus(config: RunConfig | None, gpus: list[str]) -> Iterator[Finding]:
    """Whether there are GPUs where the installed builds or the configuration want some; and NCCL, where they talk."""
    wanted = 0.0
    if config is not None:
        wanted = max(phase["GPU"] for phase in required_resources(config).values())
    for_gpus = _version("vllm") is not None
    if wanted > len(gpus):
        yield warning(
            "GPUs", f"{len(gpus)} here; {config.name if config else ''} asks for {wanted:g}",
            "submit it to a cluster that has them, or set resources.*_gpus to 0",
        )  # fmt: skip
    elif gpus and not for_gpus:
        yield warning("GPUs", f"{len(gpus)} × {gpus[0]}, but vLLM is the build for CPUs", "make setup ACCELERATOR=cuda")
    elif for_gpus and not gpus:
        cure = "install NVIDIA's driver (docker run --gpus all), or make setup ACCELERATOR=cpu"
        yield warning("GPUs", "none, but vLLM is the build for NVIDIA's", cure)
    else:
        yield ok("GPUs", f"{len(gpus)} × {gpus[0]}" if gpus else "none, and none is wanted")
    if gpus or for_gpus:
        yield check_nccl()


def check_nccl() -> Finding:
    """The library that torch brings, and the interface that it is told to use."""
    found = next(
        (f"{name} {version}" for name in ("nvidia-nccl-cu13", "nvidia-nccl-cu12") if (version := _version(name))), None
    )
    if found is None:
        return fault("NCCL", "not installed", "make setup ACCELERATOR=cuda: torch's CUDA build brings it along")
    chosen = os.environ.get("NCCL_SOCKET_IFNAME", "").lstrip("^=")
    there = {name for _, name in socket.if_nameindex()}
    missing = [name for name in chosen.split(",") if name and not any(one.startswith(name) for one in there)]
    if missing:
        cure = f"unset NCCL_SOCKET_IFNAME, or take one of {', '.join(sorted(there))}"
        return fault("NCCL", f"{found}; NCCL_SOCKET_IFNAME names {', '.join(missing)}, which is not here", cure)
    return ok("NCCL", found)


def check_ports(config: RunConfig | None) -> Iterator[Finding]:
    """The one that a served teacher would listen on."""
    served = [teacher.serve for teacher in config.teachers if teacher.backend == "serve"] if config else []
    for host, port in dict.fromkeys((serve.host, serve.port) for serve in served):
        if port == 0:
            yield ok("teacher's port", "any free one")
        elif is_free(host, port):
            yield ok("teacher's port", f"{host}:{port} is free")
        else:
            cure = "end what listens there, or set teacher.serve.port to another, or to 0 for a free one"
            yield fault("teacher's port", f"{host}:{port} cannot be listened on", cure)


def is_free(host: str, port: int) -> bool:
    """Whether a listener could be started there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
