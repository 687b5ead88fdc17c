"""The demo's configuration is found with the package, from any working directory."""

from pathlib import Path

import pytest

import orpo_ray
from orpo_ray.cli.packaged import DEMO, demo_config
from orpo_ray.config import load_config
from tests.unit.cli.conftest import Call

PACKAGE = Path(orpo_ray.__file__).parent


def test_the_packaged_models_are_those_beside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = demo_config()
    assert config.student.model == str(PACKAGE / "demo" / "models" / "student")
    assert config.teacher.model == str(PACKAGE / "demo" / "models" / "teacher")
    assert (config.name, config.storage.path) == ("demo", "runs")


def test_from_a_checkout_the_file_is_a_configuration_like_any_other() -> None:
    written = load_config(DEMO)
    assert PACKAGE.parent / str(written.teacher.model) == PACKAGE / "demo" / "models" / "teacher"
    changed = {"student", "teacher"}
    assert written.model_dump(exclude=changed) == demo_config().model_dump(exclude=changed)


def test_what_the_user_sets_comes_last() -> None:
    config = demo_config(["student.model=models/mine", "train.epochs=1"])
    assert (config.student.model, config.train.epochs) == ("models/mine", 1)
    assert str(config.teacher.model).startswith(str(PACKAGE))


def test_a_mistake_in_an_override_is_a_message(call: Call) -> None:
    ended = call("demo", "--set", "policy.phi=2")
    assert ended.code == 2
    assert "policy.phi: 2 given; take a number from 0 to 1" in ended.err
