"""From a YAML file and `--set` to a configuration."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orpo_ray.config import RunConfig, config_schema, dump_config, load_config, parse_config
from orpo_ray.errors import InputError
from tests.unit.config.data import MINIMAL, changed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    return file


def test_defaults_are_the_papers(file: Path) -> None:
    """PAPER.md, 'Settings'."""
    config = load_config(file)
    assert (config.sampling.k, config.sampling.temperature, config.sampling.rouge_l_max) == (8, 0.8, 0.8)
    assert (config.policy.phi, config.policy.refresh, config.policy.max_staleness) == (0.5, "epoch", 0)
    assert (config.train.lam, config.train.epochs) == (1.0, 5)


@pytest.mark.parametrize(
    ("override", "section", "option", "value"),
    [
        ("train.epochs=3", "train", "epochs", 3),
        ("train.lambda=0.1", "train", "lam", 0.1),
        ("train.learning_rate=1e-4", "train", "learning_rate", 1e-4),
        ("policy.refresh=12", "policy", "refresh", 12),
        ("policy.refresh=epoch", "policy", "refresh", "epoch"),
        ("tracking.tensorboard=false", "tracking", "tensorboard", False),
        ("task.path=null", "task", "path", None),
        ("student.model=a=b", "student", "model", "a=b"),
        ('student.model="models: new #2"', "student", "model", "models: new #2"),
        ("train.deepspeed={zero_optimization: {reduce_bucket_size: 5e8}}", "train", "deepspeed",
         {"zero_optimization": {"reduce_bucket_size": 5e8}}),
    ],
)  # fmt: skip
def test_set_overrides_the_file(file: Path, override: str, section: str, option: str, value: Any) -> None:
    assert getattr(getattr(load_config(file, [override]), section), option) == value


def test_set_reaches_any_depth_and_the_last_one_wins(file: Path) -> None:
    config = load_config(file, ["student.engine.dtype=float32", "name=a", "seed=3", "name=b"])
    assert (config.student.engine.dtype, config.name, config.seed) == ("float32", "b", 3)


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", ".train=3", "train.=3"])
def test_an_override_without_name_or_value(file: Path, override: str) -> None:
    with pytest.raises(InputError, match=r"write section\.option=value, as --set train\.epochs=3"):
        load_config(file, [override])


def test_an_override_below_a_value(file: Path) -> None:
    with pytest.raises(InputError, match="`model` is a value, not a section"):
        load_config(file, ["student.model.dtype=float32"])


def test_an_override_that_is_no_yaml(file: Path) -> None:
    with pytest.raises(InputError, match=r"--set student\.model=\[a: the value is not valid YAML; quote it"):
        load_config(file, ["student.model=[a"])


def test_an_override_of_an_empty_section(file: Path) -> None:
    file.write_text(yaml.safe_dump(MINIMAL) + "policy:\n")
    assert load_config(file, ["policy.phi=0.7"]).policy.phi == 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no mapping"),
        ("- task", "holds no mapping"),
        ("task: [", "not valid YAML.*line 1"),
        ("task:\n\tname: x", "not valid YAML.*line 2"),
        (
            "task: {name: a}\nstudent: {model: s}\ntask: {name: b}",
            "`task` stands twice, in line 1 and in line 3; keep one",
        ),
        ("task:\n  name: a\n  name: b", "`name` stands twice, in line 2 and in line 3"),
    ],
)
def test_a_file_that_is_no_configuration(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match=f"(?s)run.yaml: .*{message}"):
        load_config(file)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        load_config(tmp_path / "latin.yaml")


def test_numbers_are_numbers(file: Path) -> None:
    """YAML 1.1 takes 1e-4 for text; YAML 1.2, and a person, do not."""
    file.write_text(
        yaml.safe_dump(MINIMAL) + "train: {learning_rate: 1e-4, deepspeed: {a: 5E8, b: 1.e3, c: .5e-2, d: e5}}\n"
    )
    config = load_config(file)
    assert config.train.learning_rate == 1e-4
    assert config.train.deepspeed == {"a": 5e8, "b": 1e3, "c": 5e-3, "d": "e5"}


def test_a_dump_is_read_back_as_the_same(tmp_path: Path) -> None:
    config = parse_config(
        changed({"train.lambda": 0.1, "policy.refresh": 7, "name": "yes", "train.learning_rate": 1e-05})
    )
    file = tmp_path / "dump.yaml"
    file.write_text(dump_config(config))
    assert load_config(file) == config


def test_the_schema_takes_what_is_resolved_and_refuses_what_is_wrong(file: Path) -> None:
    schema = json.loads(config_schema())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    resolved = yaml.safe_load(dump_config(load_config(file)))
    validator.validate(resolved)
    validator.validate(MINIMAL)
    for wrong in ({"policy.phi": 1.5}, {"sampling.k": 0}, {"trian.epochs": 3}, {"train.zero_stage": 4}, {"policy": 3}):
        assert not validator.is_valid(changed(wrong))


def test_every_option_says_what_it_is() -> None:
    schema = json.loads(config_schema())
    sections = schema["$defs"]
    unsaid = [
        f"{title}.{name}"
        for title, section in [("run", schema), *sections.items()]
        for name, option in section["properties"].items()
        # A section whose own sentence is that of the option is said there.
        if not option.get("description", sections.get(option.get("$ref", "").rpartition("/")[2], {}).get("description"))
    ]
    assert unsaid == []


def test_a_configuration_never_changes_after_reading() -> None:
    from pydantic import ValidationError

    config: RunConfig = parse_config(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        config.policy.phi = 1.0


def test_an_experiment_is_not_taken_for_a_run(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump({"name": "exp", "base": "run.yaml", "seeds": [0]}))
    with pytest.raises(
        InputError, match=r"is an experiment and not a run; check it with orpo-ray reproduce .* --dry-run"
    ):
        load_config(file)
