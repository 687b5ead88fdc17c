"""From the configuration to what Ray Serve and vLLM are told, on CPUs and on GPUs."""

from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.teacher.app import llm_options, served_name
from tests.tiny.models import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny-teacher", "llama")


def options(model: Path, *, teacher: dict[str, Any] | None = None, **resources: Any) -> dict[str, Any]:
    config: RunConfig = parse_config(
        {
            "task": {"name": "arithmetic"},
            "student": {"model": "student"},
            "teacher": {"model": str(model), **(teacher or {})},
            "resources": resources,
        }
    )
    return llm_options(config)


def test_a_cpu_teacher_says_so_and_bounds_its_cache(model: Path) -> None:
    told = options(model, teacher={"engine": {"kv_cache_mib": 64, "max_model_len": 512}}, teacher_cpus=2, threads=3)
    assert told["accelerator_config"] == {"kind": "cpu"}
    assert told["placement_group_config"] == {"bundles": [{"CPU": 2.0}], "strategy": "PACK"}
    engine = told["engine_kwargs"]
    assert engine["kv_cache_memory_bytes"] == 64 << 20
    assert "gpu_memory_utilization" not in engine
    # Seeded requests repeat, and do not kill a CPU engine, only while prefill is whole.
    assert engine["enable_chunked_prefill"] is False
    assert engine["max_num_batched_tokens"] == 8192
    assert told["model_loading_config"] == {"model_id": "tiny-teacher", "model_source": str(model)}
    assert told["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"


def test_a_gpu_teacher_spreads_over_its_gpus_one_bundle_each(model: Path) -> None:
    told = options(model, teacher={"engine": {"tensor_parallel": 2, "gpu_memory": 0.7}}, teacher_cpus=4, teacher_gpus=2)
    assert told["accelerator_config"] == {"kind": "gpu"}
    assert told["placement_group_config"] == {"bundles": [{"CPU": 2.0, "GPU": 1.0}] * 2, "strategy": "PACK"}
    assert told["engine_kwargs"]["tensor_parallel_size"] == 2
    assert told["engine_kwargs"]["gpu_memory_utilization"] == 0.7
    assert "kv_cache_memory_bytes" not in told["engine_kwargs"]
    # Beside a placement group, num_gpus would ask for the GPUs a second time.
    assert "num_gpus" not in told["deployment_config"]["ray_actor_options"]


def test_a_replica_stays_where_its_labels_and_strategy_put_it(model: Path) -> None:
    told = options(
        model,
        teacher={"engine": {"tensor_parallel": 2}},
        teacher_gpus=2,
        teacher_strategy="STRICT_PACK",
        teacher_labels={"orpo-ray.io/role": "teacher"},
        teacher_accelerator="H100",
    )
    assert told["placement_group_config"]["strategy"] == "STRICT_PACK"
    # One selector a bundle, as Serve checks.
    selector = {"orpo-ray.io/role": "teacher", "ray.io/accelerator-type": "H100"}
    assert told["deployment_config"]["placement_group_bundle_label_selector"] == [selector, selector]
    assert "placement_group_bundle_label_selector" not in options(model)["deployment_config"]


def test_replicas_scale_between_the_bounds_asked_for(model: Path) -> None:
    fixed = options(model)["deployment_config"]
    assert fixed["num_replicas"] == 1
    serve = {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 16}
    scaled = options(model, teacher={"serve": serve})["deployment_config"]
    assert scaled["autoscaling_config"] == serve
    assert "num_replicas" not in scaled


def test_a_users_own_engine_options_have_the_last_word(model: Path) -> None:
    engine = options(model, teacher={"engine": {"extra": {"enable_prefix_caching": False, "seed": 9}}})["engine_kwargs"]
    assert engine["enable_prefix_caching"] is False
    assert engine["seed"] == 9


def test_a_model_without_a_chat_template_reads_the_plain_prompt(model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from orpo_ray.tasks.prompts import render_prompt

    messages = [{"role": "user", "content": "What is 2 plus 3?"}]
    template = options(model)["engine_kwargs"]["chat_template"]
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    served = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    assert served == render_prompt(tokenizer, messages)  # type: ignore[arg-type]
    assert tokenizer.decode(served) == "What is 2 plus 3?\n\nAnswer:\n"
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path)
    assert "chat_template" not in options(tmp_path)["engine_kwargs"]


def test_a_tokenizer_that_begins_every_text_begins_the_plain_prompt_too(model: Path, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    from orpo_ray.tasks.prompts import render_prompt

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": "What is 2 plus 3?"}]
    template = options(tmp_path)["engine_kwargs"]["chat_template"]
    served = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    assert served == render_prompt(tokenizer, messages)  # type: ignore[arg-type]
    assert served[:2] != [1, 1]
    assert served[0] == 1


def test_the_served_name_is_the_last_part() -> None:
    assert [served_name(name) for name in ("models/big/", "owner/big", "big")] == ["big"] * 3
