"""The base of every configuration section: unknown keys are refused, values never change after reading."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """One section of the YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, validate_default=True)


def option(default: Any, sentence: str, *, unit: str | None = None, **checks: Any) -> Any:
    """A configuration option: its default, what it does in one sentence, its unit, and pydantic's checks (ge, le, …)."""
    return Field(default, description=sentence, json_schema_extra=_unit(unit), **checks)


def required(sentence: str, *, unit: str | None = None, **checks: Any) -> Any:
    """An option without a default."""
    return Field(description=sentence, json_schema_extra=_unit(unit), **checks)


def _unit(unit: str | None) -> dict[str, Any]:
    return {"unit": unit} if unit else {}


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as flat `section.option` names."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = prefix + key
        if isinstance(value, dict) and value:
            flat.update(flatten(value, name + "."))
        else:
            flat[name] = value
    return flat
