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


class PositivesConfig(Section):
    """Which right traces of a prompt are learned from."""

    per_prompt: int | None = option(
        None, "Most right teacher traces of a prompt that are learned from; all where not set.", unit="traces", ge=1
    )
    fallback: Literal["none", "gold"] = option(
        "none",
        "A prompt without a right teacher trace: left out and counted, or learned from the task row's own solution, "
        "where the data holds one.",
    )


class NegativesConfig(Section):
    """Where wrong traces come from, and which count as wrong besides those with a wrong final answer."""

    source: Literal["student", "teacher", "none"] = option(
        "student",
        "Whose wrong traces are contrasted: the student's (the paper), the teacher's own (its ablation), or nobody's. "
        "The objective `sft` needs none, whatever stands here.",
    )
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
        "0 is off-policy, 1 on-policy. With a schedule, φ of the first epoch.",
        unit="probability",
        ge=0,
        le=1,
    )
    phi_schedule: Literal["constant", "linear", "cosine", "adaptive"] = option(
        "constant",
        "φ over the epochs: the same, on a line or half a cosine to phi_end, or raised and lowered by how diverse the "
        "live negatives of the epochs before were.",
    )
    phi_end: float | None = option(None, "linear and cosine: φ of the last epoch.", unit="probability", ge=0, le=1)
    phi_gain: float = option(
        1.0, "adaptive: change of φ after an epoch, for each unit of diversity above or below the target.", ge=0
    )
    phi_target: float | None = option(
        None,
        "adaptive: the diversity at which φ stays: the share of further wrong traces of a prompt that are no "
        "near-duplicates; the initial student's where not set.",
        unit="share",
        ge=0,
        le=1,
    )
    phi_min: float = option(0.1, "adaptive: φ never falls below this.", unit="probability", ge=0, le=1)
    phi_max: float = option(0.9, "adaptive: φ never rises above this.", unit="probability", ge=0, le=1)
    refresh: Literal["epoch"] | int = option(
        "epoch", "When a new student version is published to the samplers: every epoch, or every N optimizer steps."
    )
    max_staleness: int = option(
        0,
        "Most versions that a sampled pair may lag behind the student it trains; 0 is the paper's strict order.",
        unit="versions",
        ge=0,
    )
