"""From an experiment to its runs: each an ordinary configuration with a name of its own. Pure."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orpo_ray.config import RunConfig, load_config, parse_config
from orpo_ray.config.experiment import ExperimentConfig, SweepConfig
from orpo_ray.config.fingerprint import fingerprint, what_matters
from orpo_ray.config.load import read_file
from orpo_ray.config.recipe import RECIPES, RecipeName
from orpo_ray.errors import ConfigError


@dataclass(frozen=True)
class Swept:
    """Where a run stands in a sweep."""

    option: str
    value: Any


@dataclass(frozen=True)
class PlannedRun:
    """One run of an experiment.

    Attributes:
        name: of the run; the same experiment gives the same names, so that a run is found again.
        recipe: None where a sweep leaves the run's own options alone.
        swept: None for a run of the table.
    """

    name: str
    recipe: RecipeName | None
    task: str
    student: str
    seed: int
    config: RunConfig
    swept: Swept | None = None

    @property
    def title(self) -> str:
        """For people."""
        swept = f" with {self.swept.option} = {self.swept.value}" if self.swept else ""
        return f"{self.recipe or 'the run as it is'}{swept}, {self.task}, {self.student}, seed {self.seed}"


def planned_runs(experiment: ExperimentConfig, source: str = "experiment") -> list[PlannedRun]:
    """Every run of the table, recipe by recipe within a seed, then those of the sweeps.

    Runs of one seed come one after another, so that the traces which they share are made once, by the first of them. A
    run of a sweep that is also one of the table has the name of that one, and is not made twice.

    Raises:
        ConfigError: a run's configuration is wrong; each mistake stands once, with a run that has it.
    """
    base = _base(experiment)
    runs: list[PlannedRun] = []
    problems: dict[str, str] = {}
    if not experiment.recipes and not experiment.sweeps:
        raise ConfigError(["recipes: none, and no sweeps, so there is nothing to run"], source)
    for wanted in _wanted(experiment, base):
        try:
            runs.append(wanted())
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, f"{problem} (in run {wanted.name})")
    storages = sorted({run.config.storage.path for run in runs})
    if len(storages) > 1:
        problem = f"storage.path: {', '.join(storages)}; the runs of an experiment share one, and so their traces"
        problems.setdefault(problem, problem)
    if problems:
        raise ConfigError(list(problems.values()), source)
    return _merged(runs)


def traces_key(config: RunConfig) -> str:
    """Equal for runs that share the teacher's traces, as far as the configuration alone tells."""
    sections = config.model_dump(mode="json", include={"seed", "task", "teacher", "more_teachers", "sampling"})
    return fingerprint(sections)


def student_key(config: RunConfig) -> str | None:
    """Equal for runs that share the initial student's traces; None where a run has none."""
    if config.negatives_source != "student":
        return None
    # Not how the traces are used: see phases/seed.py, `traces_key`.
    sections = config.model_dump(mode="json", include={"student"})
    negatives = config.negatives.model_dump(mode="json", exclude={"source"})
    return fingerprint(traces_key(config), sections, negatives, config.positives.fallback)


@dataclass(frozen=True)
class _Wanted:
    """A run before it is checked."""

    name: str
    recipe: RecipeName | None
    task: str
    student: str
    seed: int
    data: dict[str, Any]
    swept: Swept | None

    def __call__(self) -> PlannedRun:
        config = parse_config(self.data, source=self.name)
        return PlannedRun(self.name, self.recipe, self.task, self.student, self.seed, config, self.swept)


def _base(experiment: ExperimentConfig) -> dict[str, Any]:
    """The run's sections before recipe, task, student and seed."""
    data: dict[str, Any] = {}
    if experiment.base is not None:
        load_config(experiment.base)  # says what is wrong with it in its own name
        data = read_file(experiment.base, (), "it should be a run's configuration")
    return laid_over(data, experiment.run)


def _wanted(experiment: ExperimentConfig, base: dict[str, Any]) -> Iterator[_Wanted]:
    tasks = experiment.tasks or {_own(base, "task", "name"): {}}
    students = experiment.students or {_own(base, "student", "model"): {}}
    swept: list[tuple[RecipeName | None, SweepConfig | None, Any]] = [(name, None, None) for name in experiment.recipes]
    for axis in experiment.sweeps:
        swept += [(axis.recipe, axis, value) for value in axis.values]
    for seed in experiment.seeds:
        for task, of_task in tasks.items():
            for student, of_student in students.items():
                for recipe, sweep, value in swept:
                    data = laid_over(laid_over(base, of_task), of_student)
                    name = ".".join([experiment.name, recipe or "as-is", task, student, f"s{seed}"])
                    at = None
                    if recipe is not None:
                        data = _without_fixed(data, recipe)
                        data["recipe"] = recipe
                    if sweep is not None:
                        at = Swept(sweep.option, value)
                        data = laid_over(data, _nested(sweep.option, value))
                        name += f".{sweep.option.rpartition('.')[2]}-{_file_name(value)}"
                    data |= {"name": name, "seed": seed}
                    yield _Wanted(name, recipe, task, student, seed, data, at)


def _own(base: Mapping[str, Any], section: str, option: str) -> str:
    """A column's name from the run's own task or student."""
    value = str((base.get(section) or {}).get(option, section))
    return re.sub(r"[^A-Za-z0-9_-]+", "-", value.rstrip("/").rpartition("/")[2]).strip("-") or section


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`under` with the options of `over` in their place, section by section; neither is changed."""
    merged = copy.deepcopy(dict(under))
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = laid_over(below, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return merged


def _without_fixed(data: dict[str, Any], recipe: RecipeName) -> dict[str, Any]:
    """`data` without the options that the recipe sets: they were written for the run alone, not for each recipe."""
    data = copy.deepcopy(data)
    for option in RECIPES[recipe].fixed:
        section, _, name = option.partition(".")
        if isinstance(data.get(section), dict):
            data[section].pop(name, None)
    constant = RECIPES[recipe].fixed.get("policy.phi_schedule") == "constant"
    if constant and isinstance(data.get("policy"), dict):
        data["policy"].pop("phi_end", None)
    return data


def _nested(option: str, value: Any) -> dict[str, Any]:
    *parents, last = option.split(".")
    data: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        data = {parent: data}
    return data


def _file_name(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-") or "empty"


def _merged(runs: list[PlannedRun]) -> list[PlannedRun]:
    """Runs that compute the same have the name of the first of them."""
    names: dict[str, str] = {}
    merged = []
    for run in runs:
        name = names.setdefault(fingerprint(what_matters(run.config)), run.name)
        config = run.config if name == run.name else run.config.model_copy(update={"name": name})
        merged.append(PlannedRun(name, run.recipe, run.task, run.student, run.seed, config, run.swept))
    return merged
