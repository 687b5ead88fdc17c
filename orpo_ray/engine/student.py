"""The student's engine, as samplers and evaluator start it, and what becomes of an actor whose engine died."""

import os
import sys
import traceback

from orpo_ray.config import RunConfig
from orpo_ray.engine.vllm_engine import Engine


async def start_student(config: RunConfig, directory: str) -> Engine:
    """An engine on the student in `directory`, as the configuration's `student` section has it.

    It takes adapters where `train.lora.publish` says so; `auto` is settled beforehand by who starts engines that reload.

    Raises:
        WaitTimeout: it was not up within `limits.start_s`.
    """
    lora = config.train.lora
    return await Engine.start(
        directory,
        config.student.engine,
        threads=config.resources.threads,
        trust_remote_code=config.student.trust_remote_code,
        start_s=config.limits.start_s,
        adapter_rank=lora.rank if lora is not None and lora.publish == "adapter" else 0,
    )


def end_with_dead_engine(engine: Engine | None) -> None:
    """Inside an `except`: end this process where the engine's own is gone, so that Ray starts the actor anew.

    A plain raise would leave the actor as it is, and what is retried on it would fail for ever (ray #59522).
    """
    if engine is not None and engine.dead:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
