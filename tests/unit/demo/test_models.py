"""The shipped pair: two architectures, two tokenizers, and the accuracies that the demo starts from."""

import hashlib
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from orpo_ray.demo.build import MODELS, STUDENT, TEACHER, Recipe, corpus
from orpo_ray.demo.pretrain import accuracy, encode
from orpo_ray.tasks.arithmetic import ArithmeticTask
from orpo_ray.tasks.prompts import encode_completion, render_prompt

RECIPES = pytest.mark.parametrize("recipe", [TEACHER, STUDENT], ids=lambda recipe: recipe.name)
TRACE = "Ana starts with 12, finds 5 to have 17, loses 3 to have 14. The answer is 14."


def tokenizer_of(recipe: Recipe) -> Any:
    return AutoTokenizer.from_pretrained(MODELS / recipe.name)


def test_both_together_are_small() -> None:
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) <= 8e6


def test_architectures_and_tokenizers_differ() -> None:
    models = [AutoModelForCausalLM.from_pretrained(MODELS / recipe.name) for recipe in (TEACHER, STUDENT)]
    assert [type(model).__name__ for model in models] == ["LlamaForCausalLM", "GPTNeoXForCausalLM"]
    assert tokenizer_of(TEACHER).tokenize(" 12 coins") == ["Ġ1", "2", "Ġcoins"]
    assert tokenizer_of(STUDENT).tokenize(" 12 coins") == ["Ġ12", "Ġcoins"]


@RECIPES
def test_weights_and_tokens_fit(recipe: Recipe) -> None:
    tokenizer, model = tokenizer_of(recipe), AutoModelForCausalLM.from_pretrained(MODELS / recipe.name)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    assert special["pad"] != special["eos"]
    assert {name: getattr(model.generation_config, f"{name}_token_id") for name in special} == special


@RECIPES
def test_any_text_survives_the_tokenizer(recipe: Recipe) -> None:
    tokenizer = tokenizer_of(recipe)
    text = f"{TRACE}\n\nÄpfel,  two  spaces, 1,234 and 猫."
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@RECIPES
def test_the_models_were_trained_on_the_tokens_of_a_run(recipe: Recipe) -> None:
    tokenizer, task = tokenizer_of(recipe), ArithmeticTask(split="test", sizes={"test": 20})
    for row in task.rows():
        prompt = render_prompt(tokenizer, task.messages(row))
        assert encode(tokenizer, task.prompt(row)) == (prompt, len(prompt))
        assert encode(tokenizer, task.prompt(row), TRACE)[0] == prompt + encode_completion(tokenizer, TRACE)


@RECIPES
def test_the_build_makes_the_shipped_tokenizer_again(recipe: Recipe) -> None:
    made, shipped = (
        hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        for tokenizer in (recipe.tokenizer(corpus()), tokenizer_of(recipe))
    )
    assert made == shipped


@pytest.mark.parametrize(
    ("recipe", "least", "most"), [(TEACHER, 0.90, 1.0), (STUDENT, 0.20, 0.45)], ids=["teacher", "student"]
)
def test_accuracy_is_what_the_demo_starts_from(recipe: Recipe, least: float, most: float) -> None:
    task = ArithmeticTask(split="test", sizes={"test": 500})
    model = AutoModelForCausalLM.from_pretrained(MODELS / recipe.name)
    assert least <= accuracy(model, tokenizer_of(recipe), task, task.rows()) <= most
