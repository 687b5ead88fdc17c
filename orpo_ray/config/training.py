"""The DeepSpeed worker group under Ray Train."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from orpo_ray.config.section import Section, option

Offload = Literal["none", "optimizer", "optimizer_and_parameters"]
SftScope = Literal["completion", "prompt_and_completion"]


class LoraConfig(Section):
    """Low-rank adapters (LoRA, arXiv 2106.09685) that are trained in place of the student's own weights."""

    rank: int = option(16, "Rank of each adapter.", ge=1, le=512)
    alpha: float = option(32.0, "What an adapter adds is scaled by alpha / rank.", gt=0)
    dropout: float = option(
        0.0,
        "Share of an adapter's input that is dropped in training; above 0 the loss no longer compares log-probabilities "
        "of one set of weights.",
        unit="share",
        ge=0,
        lt=1,
    )
    target_modules: Literal["all-linear"] | list[str] = option(
        "all-linear",
        "Linear layers that get an adapter, by the ends of their names, as [q_proj, v_proj]; all but the output layer.",
    )
    publish: Literal["auto", "adapter", "merged"] = option(
        "auto",
        "What samplers and evaluator get of a version: the adapter, swapped in vLLM; whole weights with the adapter "
        "merged in; or the first where vLLM can, and the second elsewhere.",
    )


class TrainConfig(Section):
    """Optimisation."""

    objective: str = option(
        "orpo",
        "What is minimised: `orpo`; `sft`, its SFT term alone, which needs no negatives; `none`, nothing: the initial student "
        "is evaluated, and that is all; or a class of your own, as `package.module:Class`.",
    )
    epochs: int = option(5, "Passes over the prompts.", unit="epochs", ge=1)
    lam: float = Field(
        1.0, alias="lambda", ge=0, description="Weight λ of the odds-ratio term; the paper takes 1.0, 0 is plain SFT."
    )
    lambda_warmup: float = option(
        0.0,
        "Share of the steps over which λ rises from 0 on a line; 0 begins with all of it.",
        unit="share",
        ge=0,
        le=1,
    )
    sft_scope: SftScope = option(
        "completion", "Tokens that the SFT term is a mean over: the chosen trace's, or the prompt's too."
    )
    pairs_per_prompt: int = option(
        4, "Most preference pairs made of one prompt's positives and negatives in an epoch.", unit="pairs", ge=1
    )
    global_batch: int = option(32, "Prompts (pair groups) of one optimizer step.", unit="prompts", ge=1)
    micro_batch: int = option(
        8, "Most pair groups that one worker takes through the model at a time.", unit="prompts", ge=1
    )
    token_budget: int = option(
        8192,
        "Most tokens that one worker takes through the model at a time, each prompt counted once; a larger pair group "
        "is split by its pairs.",
        unit="tokens",
        ge=1,
    )
    workers: int = option(2, "Ray Train workers (ranks).", unit="workers", ge=1)
    workers_min: int | None = option(
        None,
        "Fewest workers that training goes on with where the cluster has no place for all, until there is; `workers` "
        "where not set.",
        unit="workers",
        ge=1,
    )
    zero_stage: Literal[1, 2, 3] = option(2, "DeepSpeed ZeRO stage: what is partitioned over the workers.")
    offload: Offload = option(
        "none", "What DeepSpeed keeps in the host's memory instead of the GPU's; parameters with ZeRO stage 3 only."
    )
    precision: Literal["fp32", "bf16"] = option("bf16", "Precision of the forward and backward pass.")
    learning_rate: float = option(1e-5, "Peak learning rate of AdamW.", gt=0)
    schedule: Literal["cosine", "linear", "constant"] = option(
        "cosine", "Decay of the learning rate after the warm-up."
    )
    warmup_ratio: float = option(
        0.1, "Share of the steps over which the learning rate rises.", unit="share", ge=0, lt=1
    )
    weight_decay: float = option(0.0, "AdamW's decoupled weight decay.", ge=0)
    betas: tuple[float, float] = option((0.9, 0.999), "AdamW's decay rates of the two moments.")
    epsilon: float = option(1e-8, "AdamW's term that keeps its denominator from 0.", gt=0)
    max_grad_norm: float = option(1.0, "Gradients are clipped to this global norm.", gt=0)
    non_finite: Literal["stop", "skip"] = option(
        "stop",
        "What a loss or gradient that is not finite does: end the run naming the prompts, or skip the optimizer step and "
        "count it.",
    )
    lora: LoraConfig | None = option(
        None,
        "Train low-rank adapters in place of all weights: a mapping of the options below, or {} for their defaults.",
    )
    gradient_checkpointing: bool = option(False, "Recompute activations in the backward pass to save memory.")
    checkpoint_every: int = option(
        50, "Optimizer steps between checkpoints; epochs always end with one.", unit="steps", ge=1
    )
    checkpoints_kept: int = option(2, "Newest checkpoints that stay on the storage.", unit="checkpoints", ge=1)
    deepspeed: dict[str, Any] = option(
        {}, "DeepSpeed JSON merged into ours; refused where it contradicts an option above."
    )

    @field_validator("objective")
    @classmethod
    def _objective_has_a_name(cls, objective: str) -> str:
        if objective not in ("orpo", "sft", "none") and not re.fullmatch(r"[\w.]+:\w+", objective):
            raise ValueError("take orpo, sft, none, or a class of your own as `package.module:Class`")
        return objective

    @field_validator("betas")
    @classmethod
    def _betas_decay(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("each is a decay rate, from 0 to below 1, as [0.9, 0.999]")
        return betas


class EvalConfig(Section):
    """Held-out accuracy."""

    max_tokens: int | None = option(None, "Longest answer; sampling.max_tokens where not set.", unit="tokens", ge=1)
    temperature: float = option(0.0, "0 is greedy decoding.", ge=0, le=2)
    k: int = option(
        1,
        "Answers sampled to each test question besides the one above, for pass@k and majority@k of the first student and "
        "of the last (of each epoch's, where the best is exported); 1 samples none.",
        unit="answers",
        ge=1,
    )
    sample_temperature: float = option(0.8, "Sampling temperature of these.", gt=0, le=2)
    samples_kept: int = option(5, "Sample traces kept with every evaluation.", unit="traces", ge=0)


class ExportConfig(Section):
    """What becomes of the trained student."""

    select: Literal["last", "best"] = option(
        "last", "Export the last student, or the best epoch's on the validation split."
    )
    lora: Literal["merged", "adapter"] = option(
        "merged", "With train.lora: export a whole model with the adapter merged in, or the adapter alone."
    )
