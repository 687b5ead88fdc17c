"""PREPARE: what is wrong is said before anything starts. Real checks on a tiny model and the toy task."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from orpo_ray.config import RunConfig
from orpo_ray.errors import InputError
from orpo_ray.phases.needs import disk_bytes
from orpo_ray.phases.prepare import Prepare
from orpo_ray.phases.student import student_directory
from tests.tiny.internlm2 import make_internlm2
from tests.tiny.models import make_model
from tests.tiny.runs import context_of, tiny_config


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """Recorded traces that answer a training prompt."""
    file = tmp_path / "traces.jsonl"
    ids = [f"{a}+{b}" for a in range(10) for b in range(10)]
    file.write_text("".join(f'{{"prompt_id": "{row}", "text": "The answer is 3."}}\n' for row in ids))
    return file


def a_config(tmp_path: Path, model: Path, traces: Path, **sections: Any) -> RunConfig:
    return tiny_config(tmp_path / "runs", model, teacher={"backend": "recorded", "path": str(traces)}, **sections)


def prepared(config: RunConfig) -> dict[str, Any]:
    """The phase's result, without a cluster."""
    connected: list[RunConfig] = []
    result = Prepare(connect=connected.append).run(context_of(config))
    assert connected == [config]
    return result


def refused(config: RunConfig) -> str:
    def connect(config: RunConfig) -> None:
        raise AssertionError("Ray was started although the input is wrong")

    with pytest.raises(InputError) as error:
        Prepare(connect=connect).run(context_of(config))
    return str(error.value)


def test_a_run_that_can_start(tmp_path: Path, student: Path, traces: Path) -> None:
    result = prepared(a_config(tmp_path, student, traces))
    assert {split: rows["prompts"] for split, rows in result["rows"].items()} == {"train": 20, "test": 8}
    assert result["rows"]["train"]["left_out"] == 0
    assert result["rows"]["train"]["fingerprint"] != result["rows"]["test"]["fingerprint"]
    # transformers' own count of the tiny model
    from transformers import AutoModelForCausalLM

    assert result["student"]["parameters"] == AutoModelForCausalLM.from_pretrained(student).num_parameters()
    assert set(result["resources"]) == {"TEACH", "SEED", "DISTILL", "EVALUATE"}


def test_an_internlm2_student_is_converted_once(tmp_path: Path, traces: Path) -> None:
    internlm2 = make_internlm2(tmp_path / "internlm2", binary=True)
    config = a_config(tmp_path, internlm2, traces)
    result = prepared(config)
    directory = student_directory(config)
    assert directory.parent == tmp_path / "runs" / "converted"
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.config.model_type == "llama"
    assert result["student"]["parameters"] == model.num_parameters()
    written = (directory / "model-00001-of-00002.safetensors").stat().st_mtime_ns
    assert prepared(config) == result
    assert (directory / "model-00001-of-00002.safetensors").stat().st_mtime_ns == written
    short = make_internlm2(tmp_path / "short", max_position_embeddings=80)
    assert refused(a_config(tmp_path, short, traces)) == (
        "student.engine.max_model_len: 96 tokens, but the InternLM2 student has positions for 80"
    )


def test_adapters_are_looked_at_before_anything_starts(tmp_path: Path, student: Path, traces: Path) -> None:
    config = a_config(tmp_path, student, traces, train={"lora": {"rank": 2}})
    context = context_of(config)
    Prepare(connect=lambda _: None).run(context)
    # GPT-NeoX: query_key_value, dense and the two of the feed-forward layer, in 2 layers of 128 and 256
    trained = 2 * 2 * ((128 + 384) + (128 + 128) + 2 * (128 + 256))
    assert ("note", {"text": f"train.lora: {trained:,} parameters are trained"}) in context.live["said"]
    message = refused(a_config(tmp_path, student, traces, train={"lora": {"target_modules": ["q_proj"]}}))
    assert message.startswith(
        "train.lora.target_modules: q_proj ends the name of no linear layer of the student (gpt_neox)"
    )


def test_every_mistake_is_named_in_one_message(tmp_path: Path, traces: Path) -> None:
    config = a_config(
        tmp_path, tmp_path / "nowhere", traces, task={"name": "tests.tiny.sums:NoSuchTask"},
        train={"objective": "tests.tiny.sums:NoSuchObjective"},
    )  # fmt: skip
    message = refused(config)
    for part in (
        "student.model: ",
        "has no class 'NoSuchTask'",
        "train.objective: 'tests.tiny.sums:NoSuchObjective' cannot be imported",
    ):
        assert part in message


def test_a_prompt_longer_than_the_context(tmp_path: Path, student: Path, traces: Path) -> None:
    message = refused(a_config(tmp_path, student, traces, sampling={"max_tokens": 90}))
    assert "task row " in message
    assert "student.engine.max_model_len 96 less sampling.max_tokens 90 leaves 6; raise the one or lower the" in message


def test_a_teacher_without_traces(tmp_path: Path, student: Path) -> None:
    assert "traces.jsonl" in refused(a_config(tmp_path, student, tmp_path / "traces.jsonl"))


def test_a_disk_that_is_too_small(tmp_path: Path, student: Path, traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 << 20))
    message = refused(a_config(tmp_path, student, traces))
    assert "has 0.1 GiB free, and this run writes about 0.5 GiB" in message


def test_a_trace_directory_that_cannot_be_written(tmp_path: Path, student: Path, traces: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "traces").write_text("in the way")
    message = refused(a_config(tmp_path, student, traces))
    assert message.startswith(f"storage.path: {tmp_path}/runs cannot be written (")


def test_the_disk_holds_checkpoints_versions_and_the_export(tmp_path: Path, student: Path, traces: Path) -> None:
    config = a_config(tmp_path, student, traces, train={"checkpoints_kept": 2}, policy={"max_staleness": 1})
    parameters = prepared(config)["student"]["parameters"]
    weights = (student / "model.safetensors").stat().st_size
    assert disk_bytes(config) == 3 * 16 * parameters + 4 * weights + weights + 512 * 2**20


def test_the_key_changes_with_what_is_checked_and_with_nothing_else(
    tmp_path: Path, student: Path, traces: Path
) -> None:
    def key(**sections: Any) -> str:
        return Prepare().key(context_of(a_config(tmp_path, student, traces, **sections)))

    before = key()
    assert key() == key(limits={"failures": 9}) == before
    assert key(resources={"samplers": 2, "block_rows": 2}) != before
    traces.write_text(traces.read_text() + "\n")
    assert key() != before


def gsm8k_config(tmp_path: Path, model: Path, train: int, test: int) -> RunConfig:
    """Test questions from 0 on, training questions from 8 on."""

    def write(name: str, first: int, count: int) -> str:
        lines = [f'{{"question": "And {n}?", "answer": "#### {n}"}}\n' for n in range(first, first + count)]
        (tmp_path / name).write_text("".join(lines))
        return str(tmp_path / name)

    task = {"name": "gsm8k", "path": write("train.jsonl", 8, train), "test_path": write("test.jsonl", 0, test)}
    sizes = {"train_size": None, "test_size": 5}
    teacher = {"backend": "recorded", "path": "dataset"}
    config = tiny_config(tmp_path / "runs", model, task=task | sizes, teacher=teacher)
    engine = config.student.engine.model_copy(update={"max_model_len": 256})
    return config.model_copy(update={"student": config.student.model_copy(update={"engine": engine})})


def test_training_questions_of_the_test_file_are_left_out_and_said_once(tmp_path: Path, student: Path) -> None:
    context = context_of(gsm8k_config(tmp_path, student, train=20, test=10))
    result = Prepare(connect=lambda config: None).run(context)
    assert {split: (rows["prompts"], rows["left_out"]) for split, rows in result["rows"].items()} == {
        "train": (18, 2),
        "test": (5, 0),
    }
    said = [facts["text"] for kind, facts in context.live["said"] if kind == "note"]
    assert said == ["task: of task.path, 2 rows with a question that a held-out split's own data hold too are left out"]


def test_a_training_file_that_is_the_test_file(tmp_path: Path, student: Path) -> None:
    config = gsm8k_config(tmp_path, student, train=4, test=20)
    assert "4 rows with a question that a held-out split's own data hold too are left out, and none" in refused(config)
