"""Says what is wrong with a configuration to the person who wrote it: field, what was given, what would be right."""

import copy
import difflib
import json
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from orpo_ray.config.run import RunConfig
from orpo_ray.config.secrecy import SECRET_VALUE

_LONGEST_VALUE = 60


def sentences(error: ValidationError, root: type[BaseModel] = RunConfig) -> list[str]:
    """One sentence for each mistake; a value that fits none of a union's types is one mistake.

    Args:
        root: the model of the whole file.
    """
    found = [_sentence(detail, root) for detail in error.errors(include_url=False)]
    return list(dict.fromkeys(found))


def wrong_options(error: ValidationError) -> set[str]:
    """The options that the mistakes are about, as `section.option`."""
    return {".".join(_walk(detail["loc"])[0]) for detail in error.errors(include_url=False)}


def mended(data: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """`data` with what is wrong left out and what is missing filled in, so that the rest can be looked at."""
    data = copy.deepcopy(data)
    for detail in error.errors(include_url=False):
        path, _, info = _walk(detail["loc"])
        node: Any = data
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            continue
        if detail["type"] == "missing" and info is not None:
            node[path[-1]] = {} if _section(info.annotation) is not None else "missing"
        else:
            node.pop(path[-1], None)
    return data


def _sentence(detail: ErrorDetails, root: type[BaseModel]) -> str:
    path, model, info = _walk(detail["loc"], root)
    field, kind, given = ".".join(path), detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return f"{field}: unknown option{_nearest(path[-1], model)}"
    if kind == "missing" and len(path) < len(detail["loc"]) and isinstance(detail["loc"][-1], str):
        return f"{field}: an entry lacks `{detail['loc'][-1]}`"
    if kind == "missing" and len(path) == len(detail["loc"]):  # else an item of a list is
        return f"{field}: missing, and it has no default"
    if kind == SECRET_VALUE:
        return f"{field}: {detail['msg']}"
    if kind == "value_error":
        message = detail["msg"].removeprefix("Value error, ")
        if isinstance(given, dict):  # of options that contradict each other; the message names them
            return f"{field}: {message}" if field else message
        return f"{field}: {_shown(given)} given; {message}"
    if info is None:
        return f"{field or 'configuration'}: {_shown(given)} given; {detail['msg']}"
    return f"{field}: {_shown(given)} given; take {_wanted(info, path[-1])}"


def _walk(
    location: tuple[int | str, ...], root: type[BaseModel] = RunConfig
) -> tuple[list[str], type[BaseModel], FieldInfo | None]:
    """The path as the user wrote it, the section that its last part belongs to, and the option, where there is one.

    Behind a union's path pydantic names the union's branches, which the user never wrote.
    """
    path: list[str] = []
    section = root
    info: FieldInfo | None = None
    for part in location:
        info = _options(section).get(str(part))
        path.append(str(part))
        inner = _section(info.annotation) if info is not None else None
        if inner is None:
            break
        if len(path) < len(location):
            section = inner
    return path, section, info


def _options(section: type[BaseModel]) -> dict[str, FieldInfo]:
    return {info.alias or name: info for name, info in section.model_fields.items()}


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that an option is, or may be; None for a plain value."""
    return next((kind for kind in _types(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _nearest(option: str, section: type[BaseModel]) -> str:
    known = list(_options(section))
    close = difflib.get_close_matches(option, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known here are {', '.join(known)}"


def _shown(value: Any) -> str:
    """A value as YAML's flow style has it."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _wanted(info: FieldInfo, option: str) -> str:
    """What an option takes, in words."""
    if _section(info.annotation) is not None:
        return f"a section with options, or leave `{option}` out"
    unit = info.json_schema_extra.get("unit") if isinstance(info.json_schema_extra, dict) else None
    text = " or ".join(_type_wanted(kind, info) for kind in _types(info.annotation))
    return f"{text} ({unit})" if unit else text


def _types(annotation: Any) -> list[Any]:
    """The members of a union; None, which stands for the default, is left out."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if kind is not type(None)]
    return [annotation]


def _type_wanted(kind: Any, info: FieldInfo) -> str:
    if get_origin(kind) is Literal:
        values = [value if isinstance(value, str) else str(value) for value in get_args(kind)]
        return ", ".join(values[:-1]) + f" or {values[-1]}" if len(values) > 1 else values[0]
    if kind is int:
        return f"a whole number{_range(info)}"
    if kind is float:
        return f"a number{_range(info)}"
    if get_origin(kind) is tuple:
        return f"a list of {len(get_args(kind))} numbers"
    names: dict[Any, str] = {bool: "true or false", str: "text", list[str]: "a list of names"}
    return names.get(kind, "a mapping")


def _range(info: FieldInfo) -> str:
    """Bounds of a number as ` from 0 to 1`, ` from 1 on`, ` above 0`."""
    bounds = {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for limit in info.metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(limit, name, None)) is not None
    }
    low = f" from {bounds['ge']}" if "ge" in bounds else f" above {bounds['gt']}" if "gt" in bounds else ""
    if "le" in bounds:
        return f"{low}{' to' if 'ge' in bounds else ' up to'} {bounds['le']}"
    if "lt" in bounds:
        return f"{low}{' and' if low else ''} below {bounds['lt']}"
    return f"{low} on" if "ge" in bounds else low
