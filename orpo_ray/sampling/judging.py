"""From a prompt's sampled traces to its negatives: judged, sorted into classes, thinned to diverse ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orpo_ray.config.method import NegativesConfig
from orpo_ray.engine.vllm_engine import Completion
from orpo_ray.tasks import Row, Task, Verdict
from orpo_ray.traces.diversity import select_diverse


@dataclass(frozen=True)
class Judged:
    """One sampled trace with its verdict.

    Attributes:
        kept: it is a negative: wrong (or of a class that counts as wrong), and unlike the ones kept before it.
    """

    completion: Completion
    verdict: Verdict
    kept: bool


def judge_traces(
    task: Task, row: Row, completions: Sequence[Completion], negatives: NegativesConfig, rouge_l_max: float
) -> list[Judged]:
    """Judge a prompt's traces and mark its negatives, first come first kept.

    Raises:
        VerifierError: the task's verifier broke; it names the row. Never a wrong answer.
    """
    verdicts = [task.classify(row, completion.text) for completion in completions]
    candidates = [
        place
        for place, (completion, verdict) in enumerate(zip(completions, verdicts, strict=True))
        if _counts_as_wrong(completion, verdict, negatives)
    ]
    diverse = select_diverse([completions[place].text for place in candidates], rouge_l_max)
    kept = {candidates[place] for place in diverse}
    return [
        Judged(completion, verdict, place in kept)
        for place, (completion, verdict) in enumerate(zip(completions, verdicts, strict=True))
    ]


def tally(judged: Sequence[Judged]) -> Counter[str]:
    """Counts by verdict, and of truncated and kept traces."""
    counts: Counter[str] = Counter(str(item.verdict) for item in judged)
    counts["truncated"] = sum(item.completion.truncated for item in judged)
    counts["kept"] = sum(item.kept for item in judged)
    return counts


def _counts_as_wrong(completion: Completion, verdict: Verdict, negatives: NegativesConfig) -> bool:
    if verdict is Verdict.RIGHT or not completion.token_ids:
        return False
    if completion.truncated:
        return negatives.truncated == "keep"
    return verdict is Verdict.WRONG or negatives.unparsed == "keep"
