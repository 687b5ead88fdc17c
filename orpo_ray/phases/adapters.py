"""How versions of a student with adapters are published: settled once, before anything starts that has to know."""

from orpo_ray.config import RunConfig
from orpo_ray.engine.model_check import swaps_adapters
from orpo_ray.errors import InputError
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.student import student_directory

_SETTLED = "settled"


def settled_config(context: RunContext) -> RunConfig:
    """The run's configuration with `train.lora.publish` either `adapter` or `merged`, for trainers and engines alike.

    Raises:
        InputError: `adapter` is asked for, and vLLM has no adapters for this student.
    """
    config, lora = context.config, context.config.train.lora
    if lora is None or lora.publish == "merged":
        return config
    if _SETTLED not in context.live:
        can = swaps_adapters(student_directory(config))
        if not can and lora.publish == "adapter":
            raise InputError(
                "train.lora.publish: `adapter`, but vLLM takes no LoRA adapters for this architecture; give auto or merged"
            )
        how = "adapter" if can else "merged"
        if not can:
            context.say(
                "note", text="train.lora.publish: merged weights, since vLLM takes no adapters for this student"
            )
        settled = lora.model_copy(update={"publish": how})
        context.live[_SETTLED] = config.model_copy(update={"train": config.train.model_copy(update={"lora": settled})})
    result: RunConfig = context.live[_SETTLED]
    return result
