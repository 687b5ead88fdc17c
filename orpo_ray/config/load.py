"""From a YAML file and `--set` overrides to a checked RunConfig, or to every mistake at once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orpo_ray.config.run import RunConfig, cross_problems
from orpo_ray.errors import ConfigError, InputError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, override and check a run's configuration.

    Args:
        path: the YAML file. Relative paths inside it are taken from the working directory, as on the command line.
        overrides: `section.option=value`, the value in YAML.

    Raises:
        ConfigError: with every mistake found, each naming the field, what was given and what would be right.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; give the path of a run's YAML configuration") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{file}: holds no mapping; a run's configuration has sections as `task:` and `student:`")
    for override in overrides:
        _apply(data, override)
    return parse_config(data, source=str(file))


def parse_config(data: Mapping[str, Any], source: str = "configuration") -> RunConfig:
    """Check a mapping of sections.

    Raises:
        ConfigError: with every mistake found.
    """
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError([_sentence(detail) for detail in error.errors(include_url=False)], source) from None
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


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override}: write section.option=value, as --set train.epochs=3")
    *parents, last = key.strip().split(".")
    node = data
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise InputError(f"--set {override}: `{parent}` is a value, not a section, so nothing lies below it")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"--set {override}: the value is not valid YAML; quote it") from None
    # YAML 1.1 reads 1e-4 as text; a person means the number.
    if isinstance(node[last], str):
        try:
            node[last] = float(node[last])
        except ValueError:
            return


def _sentence(detail: ErrorDetails) -> str:
    """One mistake for the person who wrote it: field, what was given, what would be right."""
    # A union's branches add their own names to the path, which the user never wrote.
    field = ".".join(str(part) for part in detail["loc"] if not str(part).startswith(("literal[", "int", "function-")))
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return f"{field}: unknown option{_nearest(detail['loc'])}"
    if kind == "missing":
        return f"{field}: missing, and it has no default"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{field}: {given!r} given; {message}" if field else message


def _nearest(location: tuple[int | str, ...]) -> str:
    import difflib

    model: Any = RunConfig
    for part in location[:-1]:
        field = model.model_fields.get(part)
        if field is None or not hasattr(field.annotation, "model_fields"):
            return ""
        model = field.annotation
    known = [info.alias or name for name, info in model.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known here are {', '.join(known)}"
