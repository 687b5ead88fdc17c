"""A recipe is a set of ordinary options (PAPER.md, 'The paper's table')."""

from typing import Any

import pytest
import yaml

from orpo_ray.config import dump_config, parse_config
from orpo_ray.config.fingerprint import what_matters
from orpo_ray.config.recipe import RECIPES, RecipeName
from tests.unit.config.data import changed

OPTIONS = {
    "zero_shot_cot": ("none", "none", 0.0, None),
    "single_cot": ("sft", "none", 0.0, 1),
    "diverse_cot": ("sft", "none", 0.0, None),
    "off_policy": ("orpo", "student", 0.0, None),
    "on_policy": ("orpo", "student", 1.0, None),
    "mixed_policy": ("orpo", "student", 0.5, None),
    "teacher_negatives": ("orpo", "teacher", 0.0, None),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_recipe_fills_in_its_options(name: str) -> None:
    config = parse_config(changed({"recipe": name}))
    found = (config.train.objective, config.negatives.source, config.policy.phi, config.positives.per_prompt)
    assert found == OPTIONS[name]
    assert RECIPES[name].sentence  # type: ignore[index]


def test_every_recipe_is_tested() -> None:
    assert OPTIONS.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", OPTIONS)
def test_what_validate_prints_is_the_same_run(name: RecipeName) -> None:
    config = parse_config(changed({"recipe": name, "train.lambda": 0.1, "policy.refresh": 7}))
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    assert (config.train.lam, config.policy.refresh) == (0.1, 7), "options that belong to no recipe are left alone"


def test_the_name_alone_does_not_make_another_run() -> None:
    named = parse_config(changed({"recipe": "mixed_policy"}))
    assert what_matters(named) == what_matters(parse_config(changed({})))


@pytest.mark.parametrize(
    "phi", [{"policy.phi": 0.7}, {"policy.phi": 1, "policy.phi_schedule": "linear", "policy.phi_end": 0}]
)
def test_mixed_policy_may_mix_otherwise(phi: dict[str, Any]) -> None:
    config = parse_config(changed({"recipe": "mixed_policy", **phi}))
    assert config.policy.phi == phi["policy.phi"]


def test_sft_and_nothing_ask_no_student() -> None:
    for objective, trains in (("sft", True), ("none", False)):
        config = parse_config(changed({"train.objective": objective}))
        assert (config.negatives_source, config.live_policy.phi, config.trains) == ("none", 0.0, trains)
