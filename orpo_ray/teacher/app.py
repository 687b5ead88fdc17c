"""The teacher as a Ray Serve application: vLLM behind the OpenAI API, from the run's configuration."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_ray.config import RunConfig
from orpo_ray.engine.owner import EXTENSION
from orpo_ray.engine.vllm_engine import engine_arguments, prepare_environment
from orpo_ray.errors import InputError
from orpo_ray.tasks.prompts import PLAIN_TEMPLATE
from orpo_ray.teacher.key_gate import digest

if TYPE_CHECKING:
    from ray.serve.deployment import Application


def served_name(model: str) -> str:
    """What clients call the model: the last part of its directory or hub name."""
    return model.rstrip("/").rpartition("/")[2]


def check_served(config: RunConfig) -> None:
    """Raises InputError where the configuration's teacher is not one that Ray Serve serves."""
    if config.teacher.backend != "serve":
        raise InputError(
            f"teacher.backend: is {config.teacher.backend}, so there is nothing to serve; serve a model directory or hub "
            "name with `--set teacher.backend=serve --set teacher.model=…`"
        )


def teacher_app(config: RunConfig, key: str | None = None) -> "Application":
    """The application, not yet deployed. Importing `ray.serve.llm` takes some seconds.

    Args:
        key: what its API asks for; None for nothing.

    Raises:
        InputError: as `check_served`.
    """
    check_served(config)
    prepare_environment()
    with _root_logger_kept():
        from ray.serve.llm import LLMConfig, build_openai_app

    llm = LLMConfig(**llm_options(config))
    # The ingress only passes requests on; left to itself it takes a whole logical CPU, and two replicas a model.
    ingress = {"num_replicas": 1, "autoscaling_config": None, "ray_actor_options": {"num_cpus": 0.1}}
    arguments: dict[str, Any] = {"llm_configs": [llm], "ingress_deployment_config": ingress}
    if key is not None:
        arguments["ingress_cls_config"] = {
            "ingress_cls": "orpo_ray.teacher.keyed_ingress:KeyedIngress",
            "ingress_extra_kwargs": {"key_sha256": digest(key)},
        }
    return build_openai_app(arguments)


def llm_options(config: RunConfig) -> dict[str, Any]:
    """Keyword arguments of `ray.serve.llm.LLMConfig`."""
    resources = config.resources
    model = _model(config)
    options: dict[str, Any] = {}
    if Path(model).is_dir():
        options["callback_config"] = {"callback_class": "orpo_ray.teacher.local_model:LocalModel"}
    return options | {
        "model_loading_config": {"model_id": served_name(model), "model_source": model},
        # Left out, an accelerator means a GPU, whatever the bundles say.
        "accelerator_config": {"kind": "gpu" if resources.teacher_gpus else "cpu"},
        "placement_group_config": {"bundles": _bundles(config), "strategy": resources.teacher_strategy},
        "engine_kwargs": _engine_options(config),
        "deployment_config": _deployment_options(config),
        "log_engine_metrics": False,
        "runtime_env": {
            "env_vars": {
                "OMP_NUM_THREADS": str(resources.threads),
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_LOGGING_LEVEL": "ERROR",
                "VLLM_NO_USAGE_STATS": "1",
            }
        },
    }


def _bundles(config: RunConfig) -> list[dict[str, float]]:
    """What one replica asks of Ray; on GPUs one bundle a worker of its engine."""
    resources = config.resources
    if not resources.teacher_gpus:
        return [{"CPU": resources.teacher_cpus}]
    workers = config.teacher.engine.tensor_parallel
    return [{"CPU": resources.teacher_cpus / workers, "GPU": resources.teacher_gpus / workers}] * workers


def _engine_options(config: RunConfig) -> dict[str, Any]:
    engine = config.teacher.engine
    remote_code = config.teacher.trust_remote_code
    options = engine_arguments(_model(config), engine, trust_remote_code=remote_code)
    # `ray.serve.llm` passes the model on itself. The memory options depend on where the replicas run, not this process:
    # a head node without a GPU serves a cluster that has them.
    for name in ("model", "kv_cache_memory_bytes", "gpu_memory_utilization"):
        options.pop(name, None)
    if config.resources.teacher_gpus:
        options["gpu_memory_utilization"] = engine.gpu_memory
    else:
        options["kv_cache_memory_bytes"] = engine.kv_cache_mib << 20
    template = _chat_template_if_missing(_model(config), remote_code)
    options["worker_extension_cls"] = EXTENSION
    return options | ({"chat_template": template} if template else {}) | engine.extra


def _deployment_options(config: RunConfig) -> dict[str, Any]:
    """Replicas and their scaling.

    Serve's own router (the less busy of two replicas) stays: all K traces of a prompt are one request, so they share
    its prefix wherever it goes, and routing by prefix would send prompts with common instructions to one replica.
    """
    serve = config.teacher.serve
    options: dict[str, Any] = {
        # The replica's own process rides in the engine's first bundle; num_gpus here would ask for the GPU twice
        # (ray #59064).
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": max(2 * serve.target_ongoing_requests, config.teacher.concurrency),
        # A replica that shares its cores with others may be slow to answer, and is not dead for that.
        "health_check_timeout_s": 60,
        "graceful_shutdown_timeout_s": 5,
        "graceful_shutdown_wait_loop_s": 0.2,
    }
    if labels := config.resources.node_labels("teacher"):
        options["placement_group_bundle_label_selector"] = [labels] * len(_bundles(config))
    if serve.max_replicas == 1:
        return options | {"num_replicas": 1}
    scaling = {
        "min_replicas": serve.min_replicas,
        "max_replicas": serve.max_replicas,
        "target_ongoing_requests": serve.target_ongoing_requests,
    }
    return options | {"autoscaling_config": scaling}


def _chat_template_if_missing(model: str, trust_remote_code: bool) -> str | None:
    """For a model whose tokenizer brings no template: what makes it read just what `render_prompt` would give it."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    if tokenizer.chat_template:
        return None
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("x").input_ids[:1] == [tokenizer.bos_token_id]
    return ("{{ bos_token }}" if adds_bos else "") + PLAIN_TEMPLATE


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Importing `ray.serve.llm` gives the root logger a JSON handler at INFO, and every library then talks."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _model(config: RunConfig) -> str:
    assert config.teacher.model is not None, "checked when the configuration is read"
    return config.teacher.model
