"""A judge: a model that marks traces of open-ended tasks against a rubric."""

from typing import Annotated

from pydantic import AfterValidator, model_validator

from orpo_ray.config.secrecy import VariableName, public_url
from orpo_ray.config.section import Section, option, required


class JudgeConfig(Section):
    """An OpenAI-compatible model that says whether an answer is right, in place of the task's own verifier."""

    base_url: Annotated[str, AfterValidator(public_url)] = required("The API's base URL, as https://host/v1.")
    model: str = required("The judge's name at that URL.")
    api_key_env: VariableName = option(None, "The environment variable that holds the API key.")
    rubric: str = option(
        "The answer is right if it answers the question correctly and completely, and, where a reference is given, agrees "
        "with it in substance. Style, length and order do not matter.",
        "What makes an answer right, in words for the judge.",
    )
    votes: int = option(1, "Times that each answer is marked; the majority counts.", unit="votes", ge=1)
    temperature: float = option(
        0.0, "Sampling temperature of the judge; above 0 where votes should differ.", ge=0, le=2
    )
    max_tokens: int = option(512, "Longest judgement.", unit="tokens", ge=16)
    labelled: str | None = option(
        None, "JSONL file of answers that people marked ({question, answer, right}); the judge must agree with them."
    )
    min_agreement: float = option(
        0.8,
        "labelled: least share of these answers that the judge must mark as the people did.",
        unit="share",
        ge=0,
        le=1,
    )
    cache: str = option("runs/judge", "Directory, shared by every node, of marks that are given already.")
    concurrency: int = option(16, "Most requests in flight from one actor.", unit="requests", ge=1)
    request_timeout_s: float = option(120, "Limit of one request.", unit="seconds", gt=0)
    retries: int = option(5, "Times that a request is tried again after a 429, a 5xx or a broken connection.", ge=0)

    @model_validator(mode="after")
    def _votes_have_a_majority(self) -> "JudgeConfig":
        if self.votes % 2 == 0:
            raise ValueError(f"votes is {self.votes}, which may end in a tie; take an odd number")
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(
                f"votes is {self.votes} at temperature 0, where they cannot differ; raise judge.temperature"
            )
        return self
