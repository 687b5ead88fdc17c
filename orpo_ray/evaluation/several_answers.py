"""What several sampled answers to each question are worth: pass@k and majority@k."""

from collections import Counter
from collections.abc import Sequence
from math import comb
from statistics import fmean

from orpo_ray.tasks import Row, Task, Verdict


def pass_at_k(right: int, samples: int, k: int) -> float:
    """Probability that at least one of `k` answers is right, from `right` among `samples`: unbiased, 1 - C(n-c, k)/C(n, k).

    Source: Chen et al., "Evaluating large language models trained on code" (arXiv 2107.03374), equation 1.

    Raises:
        ValueError: unless 0 ≤ right ≤ samples and 1 ≤ k ≤ samples.
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {right} right among {samples} samples: take right ≤ samples and 1 ≤ k ≤ samples")
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority(answers: Sequence[str | None]) -> int | None:
    """Place of the first answer that says what most say; unparsed ones (None) have no vote. None where all are.

    Ties go to the answer that was given first, so that the vote is the same on each machine.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return None
    most = max(votes.values())
    return next(place for place, answer in enumerate(answers) if answer is not None and votes[answer] == most)


def counted_ks(samples: int) -> list[int]:
    """The k at which pass@k is told: powers of two, and `samples` itself."""
    powers = [1 << place for place in range(samples.bit_length()) if 1 << place < samples]
    return [*powers, samples]


def several_answers(task: Task, answers: Sequence[tuple[Row, Sequence[str]]]) -> dict[str, float | int]:
    """pass@k at each told k, and majority@n, of n sampled completions to each row: shares, 0 to 1.

    Raises:
        VerifierError: the task's verifier broke; it names the row.
    """
    right, votes = [], []
    for row, texts in answers:
        verdicts = task.classify_all([(row, text) for text in texts])
        right.append(verdicts.count(Verdict.RIGHT))
        said = [None if v is Verdict.UNPARSED else task.extract(t, row) for v, t in zip(verdicts, texts, strict=True)]
        chosen = majority(said)
        votes.append(chosen is not None and verdicts[chosen] is Verdict.RIGHT)
    samples = len(answers[0][1])
    found = {f"pass@{k}": fmean(pass_at_k(count, samples, k) for count in right) for k in counted_ks(samples)}
    return found | {f"majority@{samples}": fmean(votes)}
