"""From a prompt's sampled traces to its negatives: judged, sorted into classes, thinned to diverse ones."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orpo_ray.config.method import NegativesConfig
from orpo_ray.engine.vllm_engine import Completion
from orpo_ray.tasks import Row, Task, Verdict
from orpo_ray.traces.selection import Choice, choose
from orpo_ray.tracking.meter import record


@dataclass(frozen=True)
class Judged:
    """One sampled trace with its verdict.

    Attributes:
        choice: KEPT makes it a negative: wrong (or of a class that counts as wrong), and unlike the ones kept before it.
    """

    completion: Completion
    verdict: Verdict
    choice: Choice

    @property
    def kept(self) -> bool:
        return self.choice is Choice.KEPT


def judge_traces(
    task: Task, row: Row, completions: Sequence[Completion], negatives: NegativesConfig, rouge_l_max: float
) -> list[Judged]:
    """Judge a prompt's traces and mark its negatives, first come first kept.

    Raises:
        VerifierError: the task's verifier broke; it names the row. Never a wrong answer.
    """
    verdicts = task.classify_all([(row, completion.text) for completion in completions])
    fits = [
        _counts_as_wrong(completion, verdict, negatives)
        for completion, verdict in zip(completions, verdicts, strict=True)
    ]
    choices = choose([completion.text for completion in completions], fits, rouge_l_max)
    return [Judged(*item) for item in zip(completions, verdicts, choices, strict=True)]


def _counts_as_wrong(completion: Completion, verdict: Verdict, negatives: NegativesConfig) -> bool:
    if verdict is Verdict.RIGHT or not completion.token_ids:
        return False
    if completion.truncated:
        return negatives.truncated == "keep"
    return verdict is Verdict.WRONG or negatives.unparsed == "keep"


def record_traces(verdicts: Iterable[str], tokens: int, *, phase: str) -> None:
    """Give what the student made for some prompts to the metrics: traces by verdict, and their tokens."""
    for verdict, count in Counter(verdicts).items():
        record("orpo_sampler_traces_total", count, phase=phase, verdict=verdict)
    record("orpo_sampler_tokens_total", tokens, phase=phase)
