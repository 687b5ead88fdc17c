"""The two models: a teacher behind one of three backends, a student with weights, and the vLLM engine of either."""

from typing import Any, Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from orpo_ray.config.secrecy import SECRET_VALUE, PublicUrl, VariableName
from orpo_ray.config.section import Section, option, required


class EngineConfig(Section):
    """One vLLM engine."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "Precision of the weights in the engine.")
    max_model_len: int = option(1024, "Longest prompt plus trace that the engine takes.", unit="tokens", ge=16)
    max_num_seqs: int = option(64, "Sequences decoded side by side.", unit="sequences", ge=1)
    kv_cache_mib: int = option(
        256, "Memory of the key/value cache on a CPU; on a GPU see gpu_memory.", unit="MiB", ge=8
    )
    gpu_memory: float = option(0.9, "Share of the GPU's memory that the engine takes.", unit="share", gt=0, le=1)
    tensor_parallel: int = option(1, "GPUs that one engine is spread over.", unit="GPUs", ge=1)
    enforce_eager: bool = option(
        True, "Run without CUDA graphs or compilation: a faster start, slower decoding on a GPU."
    )
    prefill_tokens: int = option(
        8192,
        "Token budget of one engine step; prefill is kept whole, so that seeded requests repeat exactly.",
        unit="tokens",
        ge=64,
    )
    extra: dict[str, Any] = option({}, "Further keyword arguments of vLLM's AsyncEngineArgs, passed on as they are.")

    @field_validator("extra")
    @classmethod
    def _extra_is_no_secret(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if isinstance(extra.get("hf_token"), str):
            raise PydanticCustomError(
                SECRET_VALUE,
                "hf_token is a secret, and a configuration no place for one; set HF_TOKEN in the environment",
            )
        return extra


class ServeConfig(Section):
    """Backend `serve`: the teacher in vLLM under Ray Serve."""

    min_replicas: int = option(1, "Replicas at the start, and the fewest while idle.", unit="replicas", ge=1)
    max_replicas: int = option(1, "Most replicas that autoscaling starts.", unit="replicas", ge=1)
    target_ongoing_requests: int = option(
        64, "Requests in flight on a replica above which another is started.", unit="requests", ge=1
    )
    port: int = option(8000, "Port of the OpenAI API; 0 takes a free one.", unit="port", ge=0, le=65535)
    host: str = option(
        "127.0.0.1",
        "Address that the API listens on; where others than this machine reach it, it asks for a key.",
    )
    api_key_env: VariableName = option(
        None,
        "The environment variable that holds the key that the API asks for; a run that needs one makes one up where not set.",
    )
    insecure: bool = option(
        False, "Let `orpo-ray teacher` and RayService serve others than this machine without asking for a key."
    )


class TeacherConfig(Section):
    """The black-box teacher."""

    backend: Literal["serve", "openai", "recorded"] = option(
        "serve",
        "Where traces come from: our own vLLM on Ray Serve, any OpenAI-compatible URL, or a file of recorded traces.",
    )
    model: str | None = option(
        None, "serve: a model directory or hub name. openai: the model's name. recorded: a name for the report."
    )
    base_url: PublicUrl = option(None, "openai: the API's base URL, as https://host/v1.")
    api_key_env: VariableName = option(None, "openai: the environment variable that holds the API key.")
    path: str | None = option(
        None, "recorded: a JSONL or Parquet file of traces; `dataset` reads the task rows' own solutions."
    )
    weight: float = option(
        1.0, "With more_teachers: this teacher's share of the K traces of a prompt, relative to the others'.", gt=0
    )
    concurrency: int = option(64, "Most requests in flight.", unit="requests", ge=1)
    request_timeout_s: float = option(300, "Limit of one request.", unit="seconds", gt=0)
    retries: int = option(
        5,
        "Times that a request is tried again after a 429, a 5xx or a broken connection; serve: for limits.start_s at least.",
        ge=0,
    )
    engine: EngineConfig = option(EngineConfig(), "serve: the teacher's vLLM engine.")
    serve: ServeConfig = option(ServeConfig(), "serve: replicas and address.")
    trust_remote_code: bool = option(False, "Run code that the model directory brings along.")

    @property
    def clients(self) -> int:
        """Processes that ask the teacher: one keeps 256 requests in flight without becoming the bottleneck."""
        return 1 if self.backend == "recorded" else -(-self.concurrency // 256)


class StudentConfig(Section):
    """The student that is trained."""

    model: str = required("A model directory or hub name, with tokenizer and safetensors weights.")
    max_length: int = option(
        1024, "Longest prompt plus trace that is trained on; longer traces are cut and counted.", unit="tokens", ge=16
    )
    engine: EngineConfig = option(EngineConfig(), "The vLLM engine of samplers and evaluator.")
    trust_remote_code: bool = option(False, "Run code that the model directory brings along.")
