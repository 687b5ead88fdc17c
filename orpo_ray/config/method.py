"""The method's own numbers (PAPER.md, section 'Settings'): sampling, which traces count, and the mixed policy."""

from typing import Literal

from orpo_ray.config.section import Section, option


class SamplingConfig(Section):
    """How traces are drawn, from teacher and student alike."""

    k: int = option(8, "Traces sampled a prompt.", unit="traces", ge=1)
    temperature: float = option(0.8, "Sampling temperature.", gt=0, le=2)
    top_p: float = option(1.0, "Nucleus sampling: smallest set of tokens with this mass.", unit="share", gt=0, le=1)
    rouge_l_max: float = option(
        0.8,
        "A trace that overlaps a kept one of its prompt by more than this is dropped.",
        unit="ROUGE-L F",
        ge=0,
        le=1,
    )
    max_tokens: int = option(256, "Longest trace.", unit="tokens", ge=1)


class NegativesConfig(Section):
    """Which student traces count as wrong besides those with a wrong final answer."""

    unparsed: Literal["keep", "drop"] = option(
        "keep", "Traces that end by themselves without an answer that can be read: kept as negatives, or dropped."
    )
    truncated: Literal["keep", "drop"] = option(
        "drop", "Traces cut by max_tokens: kept as negatives (without an end token), or dropped."
    )


class PolicyConfig(Section):
    """The mixed policy: where a prompt's negatives come from, and how fresh the live ones are."""

    phi: float = option(
        0.5,
        "Probability that a prompt's negatives come from the latest student checkpoint rather than the initial student: "
        "0 is off-policy, 1 on-policy.",
        unit="probability",
        ge=0,
        le=1,
    )
    refresh: Literal["epoch"] | int = option(
        "epoch", "When a new student version is published to the samplers: every epoch, or every N optimizer steps."
    )
    max_staleness: int = option(
        0,
        "Most versions that a sampled pair may lag behind the student it trains; 0 is the paper's strict order.",
        unit="versions",
        ge=0,
    )
