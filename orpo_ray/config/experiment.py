"""An experiment: which runs `orpo-ray reproduce` makes and compares."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, field_validator

from orpo_ray.config.load import read_file
from orpo_ray.config.mistakes import sentences
from orpo_ray.config.recipe import RecipeName
from orpo_ray.config.section import Section, option, required
from orpo_ray.errors import ConfigError

THE_PAPERS: tuple[RecipeName, ...] = (
    "zero_shot_cot",
    "single_cot",
    "diverse_cot",
    "off_policy",
    "on_policy",
    "mixed_policy",
)


class SweepConfig(Section):
    """One option over several values, all else equal."""

    values: list[Any] = required("Its values, one run each for every task, student and seed.", min_length=1)
    recipe: RecipeName | None = option(
        "mixed_policy", "The recipe that it is swept in; null sweeps the run's own options."
    )
    # Last, since the name then hides the function.
    option: str = required("The option, as `section.option`.")

    @field_validator("option")
    @classmethod
    def _is_an_option(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)*", name):
            raise ValueError("an option is written as in a run's file, section first: policy.phi")
        return name


class ExperimentConfig(Section):
    """Recipes × tasks × students × seeds, and sweeps: a YAML file for `orpo-ray reproduce`."""

    model_config = ConfigDict(title="orpo_ray experiment")

    name: str = required("The experiment's name: its runs' names begin with it, its report lies under it.")
    base: str | None = option(None, "A run's YAML file to begin with.")
    run: dict[str, Any] = option({}, "Sections of a run's configuration, laid over those of `base`.")
    recipes: list[RecipeName] = option(
        list(THE_PAPERS),
        "The rows of the table. Options that make a recipe what it is take the place of what `base` and `run` say.",
    )
    tasks: dict[str, dict[str, Any]] = option(
        {}, "The columns: sections laid over the run's, by the column's name; the run's own task where there is none."
    )
    students: dict[str, dict[str, Any]] = option(
        {}, "Students: sections laid over the run's, by name; the run's own where there is none."
    )
    seeds: list[int] = option([0], "Each run is made with each of these seeds.", min_length=1)
    sweeps: list[SweepConfig] = option([], "Options to sweep besides.")
    parallel: int = option(1, "Runs at a time, where the machine is large enough.", unit="runs", ge=1)

    @field_validator("name")
    @classmethod
    def _name_is_a_directory(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError("an experiment's name is part of directories' names: letters, digits, dash and underscore")
        return name

    @field_validator("tasks", "students")
    @classmethod
    def _names_are_too(cls, columns: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in columns:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"`{name}` becomes part of a run's name: letters, digits, dash and underscore")
        return columns

    @field_validator("seeds", "recipes")
    @classmethod
    def _once_each(cls, values: list[Any]) -> list[Any]:
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice")
        return values


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment's YAML file.

    Args:
        overrides: as `load_config`'s, from the file's top: `run.train.epochs=3`.

    Raises:
        ConfigError: with every mistake found in it. What it makes of its runs is checked by `planned_runs`.
        InputError: it cannot be read.
    """
    data = read_file(path, overrides, "an experiment has `name:`, `run:` and `recipes:`")
    try:
        return ExperimentConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(sentences(error, ExperimentConfig), str(path)) from None
