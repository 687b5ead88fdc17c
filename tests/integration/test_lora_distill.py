"""SEED, DISTILL, EVALUATE and EXPORT with adapters: ZeRO-3 workers train them, samplers and evaluator swap them.

The same stream as in test_distill: 18 prompts with right teacher traces, 2 epochs in batches of 8 for 2 ranks, 6 steps.
"""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from orpo_ray.config.training import LoraConfig
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.distill import Distill
from orpo_ray.phases.evaluate import Evaluate
from orpo_ray.phases.export import Export, write_export
from orpo_ray.phases.metrics_tail import read_metrics
from orpo_ray.phases.seed import Seed
from orpo_ray.tasks.split_of import split_of
from orpo_ray.training.lora import count_trainable
from tests.tiny.models import make_model
from tests.tiny.runs import context_of, teach_by_hand, tiny_config

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(1500), pytest.mark.slow]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student", "llama")


@pytest.fixture(scope="module")
def finished(ray_session: None, student: Path, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    config = tiny_config(
        tmp_path_factory.mktemp("runs"), student,
        train={"zero_stage": 3, "learning_rate": 1e-2, "lora": {"rank": 4, "alpha": 8}},
    )  # fmt: skip
    context = context_of(config)
    teach_by_hand(context)
    for phase in (Seed(), Distill(), Evaluate(), Export()):
        context.results[phase.name] = phase.run(context)
        assert phase.still_there(context, context.results[phase.name])
    return context


def adapted(student: Path, adapter: str | Path) -> Any:
    return peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(student), str(adapter)).eval()


def test_versions_are_adapters(finished: RunContext, student: Path) -> None:
    versions = sorted(finished.layout.weights.iterdir())
    assert [version.name for version in versions] == ["v000001-a001", "v000002-a001"]
    for version in versions:
        assert sorted(file.name for file in version.iterdir()) == [
            "adapter_config.json", "adapter_model.safetensors", "orpo_ray_version.json",
        ]  # fmt: skip
        held = sum(tensor.numel() for tensor in load_file(version / "adapter_model.safetensors").values())
        assert held == count_trainable(student, LoraConfig(rank=4))


def test_the_samplers_swapped_to_what_the_trainer_had(finished: RunContext) -> None:
    """In the first step of an epoch sampler and trainer have the same student; nats a token."""
    lines = [line for line in read_metrics(finished.layout.metrics) if line["by_policy"]["live"]]
    gaps = {line["step"]: line["sampler_gap"] for line in lines}
    assert gaps.keys() >= {1, 4}
    for step, gap in gaps.items():
        assert gap < 1e-4 if step in (1, 4) else gap > 1e-4


def test_it_learned(finished: RunContext) -> None:
    result = finished.results["DISTILL"]
    assert result["versions"] == 2
    assert result["loss_last"] < result["loss_first"]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_the_evaluators_greedy_answers_are_those_of_peft(finished: RunContext, student: Path, epoch: int) -> None:
    evaluation = json.loads((finished.layout.evaluations / f"epoch-{epoch:03d}-test.json").read_text())
    version = finished.layout.weights / f"v{epoch:06d}-a001"
    model = adapted(student, version) if epoch else AutoModelForCausalLM.from_pretrained(student).eval()
    tokenizer = AutoTokenizer.from_pretrained(student)
    task = split_of(finished.config.task, "test", finished.config.seed)
    texts = []
    for row in task.rows():
        prompt = tokenizer(f"{task.prompt(row)}\n\nAnswer:\n", add_special_tokens=False, return_tensors="pt").input_ids
        tokens = model.generate(input_ids=prompt, do_sample=False, max_new_tokens=12)[0, prompt.shape[1] :]
        texts.append(tokenizer.decode(tokens, skip_special_tokens=True))
    assert [sample["text"] for sample in evaluation["samples"]] == texts[: len(evaluation["samples"])]
    assert evaluation["correct"] == sum(task.verify(*item) for item in zip(task.rows(), texts, strict=True))


def test_the_export_is_the_last_adapter_merged_in(finished: RunContext, student: Path, tmp_path: Path) -> None:
    ids = AutoTokenizer.from_pretrained(student)("What is 1 plus 2?", return_tensors="pt").input_ids
    version = Path(finished.results["DISTILL"]["weights"])
    expected = adapted(student, version)(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(finished.layout.export).eval()
    assert (merged(ids).logits - expected).abs().max() < 1e-4
    write_export(version, student, tmp_path, "adapter", name="student")
    assert (adapted(student, tmp_path)(ids).logits - expected).abs().max() < 1e-6


def test_checkpoints_hold_no_frozen_weights(finished: RunContext, student: Path) -> None:
    """Three numbers in float32 for each that is trained, and names."""
    trained = count_trainable(student, LoraConfig(rank=4))
    newest = max(finished.layout.checkpoints.iterdir())
    size = sum(file.stat().st_size for file in newest.rglob("*optim_states.pt"))
    assert 12 * trained < size < 12 * trained + (400 << 10)
