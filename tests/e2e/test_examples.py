"""Every example is a valid configuration, and those that a small machine can run are run to their end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import load_config

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# Experiments, of many runs, are held by tests/unit/experiment/test_examples.py.
RUNS = sorted(file for file in EXAMPLES.glob("*.yaml") if not file.stem.startswith("reproduce"))
# As the command `orpo-ray`, whether or not the package is installed.
COMMAND = (sys.executable, "-c", "import sys; from orpo_ray.cli import main; sys.argv[0] = 'orpo-ray'; main()")


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_an_example_is_valid_and_listed(file: Path) -> None:
    config = load_config(file)
    assert f"({file.name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for option in ("student.model", "task.path"):  # where a user's own go
        assert load_config(file, [f"{option}=/somewhere/else"]) != config


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_an_example_says_how_to_get_the_models_it_takes_from_this_disk(file: Path) -> None:
    config, text = load_config(file), file.read_text(encoding="utf-8")
    for model in (config.student.model, config.teacher.model):
        if model is not None and model.startswith("models/"):
            assert f"python -m orpo_ray.demo.smollm2 {model}" in text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_gsm8k_into_smollm2(tmp_path: Path, shared_data: Path, smollm2: Path) -> None:
    config = load_config(EXAMPLES / "gsm8k-smollm2.yaml")
    report, ledger = run(
        config.name, tmp_path, f"task.path={shared_data / 'gsm8k_train.jsonl'}", f"student.model={smollm2}"
    )
    check_finished(report, test_rows=config.task.test_size)
    assert report["traces"]["teacher"]["right"] == config.task.train_size  # GSM8K's own solutions are right
    assert trained_prompts(ledger) == config.task.train_size
    check_ledger(ledger, config.policy.max_staleness)
    check_export(Path(report["student"]["path"]))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_smollm2_teaches_arc_to_a_smaller_student(
    tmp_path: Path, shared_data: Path, smollm2: Path, smaller_student: Path
) -> None:
    config = load_config(EXAMPLES / "arc-smollm2-teacher.yaml")
    report, ledger = run(
        config.name,
        tmp_path,
        f"task.path={shared_data / 'arc_challenge_train.jsonl'}",
        f"teacher.model={smollm2}",
        f"student.model={smaller_student}",
    )
    check_finished(report, test_rows=config.task.test_size)
    taught = report["traces"]["teacher"]
    assert taught["traces"] == taught["prompts"] * config.sampling.k
    # 14 % of right traces were measured: some prompts have one, and some have none.
    assert 0.05 < taught["right"] / taught["traces"] < 0.4
    assert report["teacher"]["total"] == config.task.test_size
    assert trained_prompts(ledger) == taught["prompts"] - taught["prompts_without_kept"]
    check_ledger(ledger, config.policy.max_staleness)
    check_export(Path(report["student"]["path"]))


def run(name: str, storage: Path, *overrides: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run an example as its comments say; returns its report and the ledger's lines."""
    sets = [part for override in (*overrides, f"storage.path={storage}") for part in ("--set", override)]
    command(["run", str(EXAMPLES / f"{name}.yaml"), *sets])
    report = json.loads(command(["show", name, "--storage", str(storage), "--json"]))
    print(json.dumps(report, indent=1))
    ledger = command(["show", name, "--storage", str(storage), "--ledger"]).splitlines()
    return report, [json.loads(line) for line in ledger]


def command(arguments: list[str]) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},  # all that these runs need is here
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"orpo-ray {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def check_finished(report: dict[str, Any], test_rows: int) -> None:
    assert report["state"] == "done"
    assert [phase["state"] for phase in report["phases"]] == ["done"] * 6
    measured = [(item["epoch"], item["total"]) for item in report["evaluations"] if item["split"] == "test"]
    assert measured == [(0, test_rows), (1, test_rows)]


def trained_prompts(ledger: list[dict[str, Any]]) -> int:
    """Distinct prompts, each trained once: the run has one epoch."""
    prompts = [line["prompt_id"] for line in ledger if line["policy"] != "padding"]
    assert len(set(prompts)) == len(prompts)
    return len(prompts)


def check_ledger(ledger: list[dict[str, Any]], max_staleness: int) -> None:
    """Negatives of both kinds, and none older than allowed: with a version a step, step s (from 1) trains version s - 1."""
    live = [line for line in ledger if line["policy"] == "live"]
    assert live
    assert any(line["policy"] == "initial" for line in ledger)
    assert all(0 <= line["step"] - 1 - line["version"] <= max_staleness for line in live)
    assert any(line["version"] > 0 for line in live)


def check_export(directory: Path) -> None:
    """The exported student is a model that writes text and knows where to end."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from orpo_ray.engine.model_check import check_model
    from orpo_ray.tasks.prompts import render_prompt

    check_model(str(directory), "student")
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype="auto")
    assert GenerationConfig.from_pretrained(directory).eos_token_id == tokenizer.eos_token_id
    prompt = render_prompt(tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    import torch

    tokens = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :]
    assert tokenizer.decode(tokens).strip()
