"""The paper's recipes: names for sets of ordinary options, so that what is compared is the same program (PAPER.md's table).

Every recipe trains on the same prompts, for the same number of epochs and of optimizer steps: a step is a batch of prompts,
and a prompt weighs the same however many pairs it has. `zero_shot_cot` trains nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

RecipeName = Literal[
    "zero_shot_cot",
    "single_cot",
    "diverse_cot",
    "off_policy",
    "on_policy",
    "mixed_policy",
    "teacher_negatives",
]


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        sentence: what it is, for people.
        fixed: options that make it this recipe, as `section.option`; another value contradicts it.
        usual: options that it sets where the user does not.
    """

    sentence: str
    fixed: Mapping[str, Any]
    usual: Mapping[str, Any]


def _recipe(sentence: str, usual: Mapping[str, Any] | None = None, **fixed: Any) -> Recipe:
    return Recipe(sentence, {name.replace("__", "."): value for name, value in fixed.items()}, usual or {})


_SFT: dict[str, Any] = {
    "train__objective": "sft",
    "negatives__source": "none",
    "policy__phi": 0.0,
    "policy__phi_schedule": "constant",
}
_ORPO: dict[str, Any] = {"train__objective": "orpo"}

RECIPES: dict[RecipeName, Recipe] = {
    "zero_shot_cot": _recipe(
        "the initial student as it is: nothing is trained",
        **(_SFT | {"train__objective": "none"}),
    ),
    "single_cot": _recipe("SFT on one right teacher trace of each prompt", **_SFT, positives__per_prompt=1),
    "diverse_cot": _recipe("SFT on all diverse right teacher traces", **_SFT, positives__per_prompt=None),
    "off_policy": _recipe(
        "ORPO with wrong traces of the initial student",
        **_ORPO,
        negatives__source="student",
        policy__phi=0.0,
        policy__phi_schedule="constant",
    ),
    "on_policy": _recipe(
        "ORPO with wrong traces of the newest student",
        **_ORPO,
        negatives__source="student",
        policy__phi=1.0,
        policy__phi_schedule="constant",
    ),
    "mixed_policy": _recipe(
        "ORPO with wrong traces of the newest student with probability φ, else of the initial one",
        {"policy.phi": 0.5},
        **_ORPO,
        negatives__source="student",
    ),
    "teacher_negatives": _recipe(
        "ORPO with the teacher's own wrong traces (ablation)",
        **_ORPO,
        negatives__source="teacher",
        policy__phi=0.0,
        policy__phi_schedule="constant",
    ),
}


def with_recipe(data: Any) -> Any:
    """The sections of a configuration with the options of its recipe filled in where they are not set."""
    if not isinstance(data, Mapping) or data.get("recipe") not in RECIPES:
        return data
    recipe = RECIPES[data["recipe"]]
    filled = dict(data)
    for name, value in {**recipe.usual, **recipe.fixed}.items():
        section, _, option = name.partition(".")
        options = filled.get(section)
        options = {} if options is None else options
        if isinstance(options, Mapping):
            filled[section] = {option: value, **options}
        elif hasattr(options, "model_dump"):  # a section that is built already
            given = options.model_dump(by_alias=True, exclude_unset=True)
            filled[section] = {option: value, **given}
    return filled


def contradictions(name: RecipeName | None, flat: Mapping[str, Any]) -> list[str]:
    """Options that contradict the recipe, one sentence each.

    Args:
        flat: the resolved options, as `section.option`.
    """
    if name is None:
        return []
    problems = [
        f"{option}: {_shown(flat[option])} given, but recipe `{name}` is {option} {_shown(value)}; leave it out, or take "
        "another recipe"
        for option, value in RECIPES[name].fixed.items()
        if flat[option] != value
    ]
    if name == "mixed_policy" and flat["policy.phi_schedule"] == "constant" and flat["policy.phi"] in (0.0, 1.0):
        other = "off_policy" if flat["policy.phi"] == 0.0 else "on_policy"
        problems.append(
            f"policy.phi: {flat['policy.phi']:g} mixes nothing; take recipe `{other}`, or φ between 0 and 1"
        )
    return problems


def _shown(value: Any) -> str:
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
