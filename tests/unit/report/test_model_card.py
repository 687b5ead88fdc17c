"""The card of the exported student."""

from pathlib import Path

import pytest
import yaml

from orpo_ray.report.model_card import model_card
from tests.unit.controller.dummies import config
from tests.unit.report.finished import RESULTS


def test_the_front_matter_is_what_the_hub_reads() -> None:
    card = model_card(config(student={"model": "HuggingFaceTB/SmolLM2-135M-Instruct"}), RESULTS, 2)
    _, front, _ = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "tags": ["orpo", "distillation", "orpo-ray"],
    }


def test_a_local_student_is_no_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/student").mkdir(parents=True)
    assert "base_model" not in model_card(config(), RESULTS, 2)


def test_an_adapter_says_how_it_is_loaded() -> None:
    lora = {"train": {"lora": {"rank": 8}}, "student": {"model": "owner/student"}}
    merged = model_card(config(**lora), RESULTS, 2)
    assert "| trained | LoRA adapters of rank 8, alpha 32, on all linear layers |" in merged
    assert "library_name: transformers" in merged
    assert "PeftModel" not in merged
    card = model_card(config(**lora, export={"lora": "adapter"}), RESULTS, 2, converted=True)
    assert "library_name: peft" in card
    assert 'from_pretrained("owner/student")\nstudent = PeftModel.from_pretrained(student, "this directory")' in card
    assert "InternLM2 in the Llama layout, so the base is its conversion, `converted/` in" in card


def test_metrics_and_data() -> None:
    card = model_card(config(), RESULTS, 2)
    for line in (
        "| test | before training | 142/500 | 28.4 % (24.6–32.5) |",
        "| test | after epoch 2 | 237/500 | 47.4 % (43.1–51.8) |",
        "| test | the teacher (greedy) | 463/500 | 92.6 % (90.0–94.6) |",
        "| preference pairs | 4,700 |",
        "| prompts by origin of their negatives | 600 live, 590 initial, 4 none |",
        "| staleness of live negatives, in versions | 0: 450, 1: 150 |",
        "| train rows | 600, fingerprint `aaaabbbbccccdddd` |",
        "| teacher traces | 2,013 kept of 4,800, fingerprint `0123456789abcdef` |",
    ):
        assert line in card.splitlines()
    assert "after epoch 2 of 5" in card


def test_the_configuration_is_whole_but_for_where_the_run_worked() -> None:
    card = model_card(config(storage={"path": "/home/ann/secret-project"}), RESULTS, 2)
    written = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert written["train"]["lambda"] == 1.0
    assert written["sampling"] == config().sampling.model_dump()
    assert written.keys() & {"storage", "resources", "limits", "tracking"} == set()
    assert "/home/ann" not in card


def test_a_run_whose_phases_say_little_has_a_card_all_the_same() -> None:
    assert "# toy: a student distilled by ORPO-Distill" in model_card(config(), {}, 1)
