"""The one wrapper round vLLM's AsyncLLM: start, seeded sampling, reload, stop."""

import asyncio
import math
import os
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from orpo_ray.config.models import EngineConfig
from orpo_ray.engine.adapters import is_adapter, room_for
from orpo_ray.engine.worker_reload import EXTENSION
from orpo_ray.errors import WaitTimeout


@dataclass(frozen=True)
class Completion:
    """One sampled trace.

    Attributes:
        token_ids: the engine's own ids, with the end token where the trace ended by itself.
        text: decoded without special tokens.
        truncated: cut by length, so without an end token.
        logp: the engine's mean log-probability of the tokens, before temperature; NaN where it was not asked for.
        version: label of the weights that sampled it, as the engine itself reports it; None before the first reload.
    """

    token_ids: list[int]
    text: str
    truncated: bool
    logp: float
    version: str | None


@dataclass(frozen=True)
class Draw:
    """How one prompt is sampled. `seed` makes the K traces repeat exactly; temperature 0 is greedy."""

    k: int
    temperature: float
    max_tokens: int
    seed: int
    top_p: float = 1.0
    logp: bool = False


def prepare_environment(threads: int | None = None) -> None:
    """Settings that vLLM reads when it is imported. Call it before the first import in the process."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "1")
    # Left to itself each CPU engine pins its threads to every core, on top of its neighbours'.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def engine_arguments(
    model: str, config: EngineConfig, *, seed: int = 0, trust_remote_code: bool = False, adapter_rank: int = 0
) -> dict[str, Any]:
    """Keyword arguments of AsyncEngineArgs for a model directory.

    Prefill is kept whole: a seeded request whose prefill is cut into chunks does not repeat, and kills a CPU engine.

    Args:
        adapter_rank: largest rank of the LoRA adapters that it takes, one at a time; 0 for none.
    """
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": model,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.prefill_tokens,
        "enable_chunked_prefill": False,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel,
        "trust_remote_code": trust_remote_code,
        "seed": seed,
    }
    if current_platform.is_cpu():
        arguments["kv_cache_memory_bytes"] = config.kv_cache_mib << 20
    else:
        arguments["gpu_memory_utilization"] = config.gpu_memory
    if adapter_rank:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": room_for(adapter_rank)}
    return arguments | config.extra


class Engine:
    """A running vLLM engine. Start it inside the event loop that will use it.

    Its weights are replaced whole, or, where it takes adapters, by an adapter on the weights that it was started with.
    """

    def __init__(self, llm: Any, tokenizer: Any, model: str, *, takes_adapters: bool) -> None:
        self._llm = llm
        self._tokenizer = tokenizer
        self._model, self._takes_adapters = model, takes_adapters
        self._adapter: Any = None
        self._adapters = 0

    @classmethod
    async def start(
        cls,
        model: str,
        config: EngineConfig,
        *,
        threads: int | None = None,
        trust_remote_code: bool = False,
        start_s: float = 600,
        adapter_rank: int = 0,
    ) -> "Engine":
        """Start an engine on the weights in directory `model`.

        Args:
            adapter_rank: largest rank of the adapters that `reload` will be given; 0 where it is given whole models.

        Raises:
            WaitTimeout: its process was not ready after `start_s` seconds.
        """
        prepare_environment(threads)
        # vLLM reads its limit when it is imported, so the first engine of a process sets it.
        os.environ.setdefault("VLLM_ENGINE_READY_TIMEOUT_S", str(math.ceil(start_s)))
        from transformers import AutoTokenizer
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = engine_arguments(model, config, trust_remote_code=trust_remote_code, adapter_rank=adapter_rank)
        arguments["worker_extension_cls"] = EXTENSION
        try:
            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments, disable_log_stats=True))
        except TimeoutError:
            raise WaitTimeout(f"limits.start_s: an engine on {model} was not ready within {start_s:g} s") from None
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
        return cls(llm, tokenizer, model, takes_adapters=adapter_rank > 0)

    @property
    def dead(self) -> bool:
        """Whether the engine's process is gone."""
        return bool(self._llm.errored)

    async def sample(self, prompt: Sequence[int], how: Draw) -> list[Completion]:
        """K traces of one prompt, given as token ids, in the order of their seeds."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            n=how.k,
            temperature=how.temperature,
            top_p=how.top_p,
            max_tokens=how.max_tokens,
            seed=how.seed if how.temperature > 0 else None,
            logprobs=0 if how.logp else None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        request = {"prompt_token_ids": list(prompt)}
        outputs: dict[int, Any] = {}
        async for output in self._generate(request, parameters):
            outputs.update({completion.index: completion for completion in output.outputs})
        return [self._completion(outputs[index]) for index in sorted(outputs)]

    async def sample_all(self, prompts: Sequence[Sequence[int]], draws: Sequence[Draw]) -> list[list[Completion]]:
        """K traces of each prompt, sampled side by side."""
        return list(await asyncio.gather(*(self.sample(p, d) for p, d in zip(prompts, draws, strict=True))))

    @property
    def dtype(self) -> str:
        """Precision of the weights, as `bfloat16`."""
        return str(self._llm.model_config.dtype).removeprefix("torch.")

    async def score(self, prompt: Sequence[int], trace: Sequence[int]) -> list[float]:
        """Log-probability of each token of a given trace behind the prompt, nats."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        tokens = [*prompt, *trace]
        # A token has to be sampled; no cached prefix is used where the prompt's log-probabilities are asked for.
        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        request = {"prompt_token_ids": tokens}
        *_, output = [item async for item in self._generate(request, parameters)]
        return [output.prompt_logprobs[at][tokens[at]].logprob for at in range(len(prompt), len(tokens))]

    async def reload(self, directory: str, label: str, timeout_s: float) -> None:
        """Replace the weights by those in `directory`, once nothing is in flight; `label` marks what is sampled next.

        Args:
            directory: a whole model; or, where adapters are taken, an adapter, or the model that the engine started on.

        Raises:
            WaitTimeout: it took longer than `timeout_s` seconds.
        """
        await self._while_paused(partial(self._replace, directory), directory, label, timeout_s)

    async def receive(self, address: str, label: str, timeout_s: float) -> None:
        """Replace the weights by those of a whole model that is sent at `address` (`weights/link.py`), as `reload` does.

        Raises:
            WaitTimeout: it took longer than `timeout_s` seconds.
        """
        receive = partial(
            self._llm.collective_rpc, "receive_weights", kwargs={"address": address, "limit_s": timeout_s}
        )
        await self._while_paused(receive, address, label, timeout_s)

    async def _while_paused(
        self, replace: Callable[[], Awaitable[Any]], source: str, label: str, timeout_s: float
    ) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                # As vllm's pause_generation, less the 20 ms that it sleeps so that outputs come in before it returns: whoever
                # samples waits for its own.
                await self._llm.engine_core.pause_scheduler_async(mode="wait", clear_cache=True)
                try:
                    await replace()
                    await self._llm.update_weight_version(label)
                finally:
                    await self._llm.resume_generation()
        except TimeoutError:
            raise WaitTimeout(
                f"limits.reload_s: an engine did not load {source} within {timeout_s:g} s; "
                f"{self._llm.get_num_unfinished_requests()} requests were in flight"
            ) from None

    async def _replace(self, directory: str) -> None:
        if not self._takes_adapters:
            await self._llm.collective_rpc("replace_weights", kwargs={"directory": directory})
        elif is_adapter(directory):
            await self._swap(directory)
        elif os.path.realpath(directory) == os.path.realpath(self._model):
            await self._swap(None)
        else:
            raise ValueError(f"{directory} holds no adapter, and this engine takes only adapters of {self._model}")

    async def _swap(self, directory: str | None) -> None:
        """Put another adapter, or none, in the place of the one there is; a broken one leaves it where it is."""
        from vllm.lora.request import LoRARequest

        former, new = self._adapter, None
        if directory is not None:
            # Every adapter has a name and a number of its own: vLLM keeps prefixes and weights by them.
            self._adapters += 1
            new = LoRARequest(f"student-{self._adapters}", self._adapters, directory)
            await self._llm.add_lora(new)
        self._adapter = new
        if former is not None:
            await self._llm.remove_lora(former.lora_int_id)

    def _generate(self, request: dict[str, list[int]], parameters: Any) -> AsyncGenerator[Any, None]:
        generated: AsyncGenerator[Any, None] = self._llm.generate(
            request, parameters, request_id=uuid.uuid4().hex, lora_request=self._adapter
        )
        return generated

    def stop(self) -> None:
        """End the engine's processes."""
        self._llm.shutdown()

    def _completion(self, output: Any) -> Completion:
        token_ids = list(output.token_ids)
        versions = getattr(output, "weight_versions", None)
        logp = float("nan")
        if output.cumulative_logprob is not None and token_ids:
            logp = output.cumulative_logprob / len(token_ids)
        return Completion(
            token_ids=token_ids,
            text=self._tokenizer.decode(token_ids, skip_special_tokens=True),
            truncated=output.finish_reason == "length",
            logp=logp,
            # The oldest span is the one that staleness is counted from.
            version=versions[0].version if versions else None,
        )
