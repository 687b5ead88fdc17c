"""From a YAML file and `--set` overrides to a checked RunConfig, or to every mistake at once."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orpo_ray.config.mistakes import mended, sentences, wrong_options
from orpo_ray.config.run import RunConfig, cross_problems
from orpo_ray.config.yaml_text import read_yaml
from orpo_ray.errors import ConfigError, InputError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, override and check a run's configuration.

    Args:
        path: the YAML file. Relative paths inside it are taken from the working directory, as on the command line.
        overrides: `section.option=value`, the value in YAML.

    Raises:
        ConfigError: with every mistake found, each naming the field, what was given and what would be right.
        InputError: the file cannot be read as YAML, or an override not as one.
    """
    data = read_file(path, overrides, "a run's configuration has sections as `task:` and `student:`")
    if "task" not in data and data.keys() & {"run", "base", "recipes"}:
        raise InputError(f"{path}: is an experiment and not a run; check it with orpo-ray reproduce {path} --dry-run")
    return parse_config(data, source=str(path))


def read_file(path: str | Path, overrides: Sequence[str], shape: str) -> dict[str, Any]:
    """The mapping in a YAML file, with overrides.

    Args:
        shape: what such a file looks like, for the message.

    Raises:
        InputError: there is none, or it is not what `shape` says.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; give the path of a YAML configuration") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text: {error}") from None
    try:
        data = read_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{file}: holds no mapping; {shape}")
    for override in overrides:
        _apply(data, override)
    return data


def parse_config(data: Mapping[str, Any], source: str = "configuration") -> RunConfig:
    """Check a mapping of sections.

    Raises:
        ConfigError: with every mistake found.
    """
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError([*sentences(error), *_problems_besides(data, error)], source) from None
    problems = cross_problems(config)
    if problems:
        raise ConfigError(problems, source)
    return config


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML, every option spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def config_schema() -> str:
    """The JSON Schema of the YAML file."""
    return json.dumps(RunConfig.model_json_schema(by_alias=True), indent=2, ensure_ascii=False)


def _problems_besides(data: Mapping[str, Any], error: ValidationError) -> list[str]:
    """What is wrong between sections, as far as it does not hang on options that are wrong themselves."""
    wrong: set[str] = set()
    rest = copy.deepcopy(dict(data))
    # A section that was missing, and is filled in, may lack options of its own.
    for _ in range(3):
        wrong |= wrong_options(error)
        rest = mended(rest, error)
        try:
            config = RunConfig.model_validate(rest)
        except ValidationError as another:
            error = another
            continue
        return [problem for problem in cross_problems(config) if not any(option in problem for option in wrong)]
    return []


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {override}: write section.option=value, as --set train.epochs=3")
    *parents, last = parts
    node = data
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise InputError(f"--set {override}: `{parent}` is a value, not a section, so nothing lies below it")
    try:
        node[last] = read_yaml(value)
    except yaml.YAMLError:
        raise InputError(f"--set {override}: the value is not valid YAML; quote it") from None
