"""The Ray Data actor that judges the teacher's traces: verified, thinned to diverse right ones, written to the store."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from orpo_ray.tasks import Row, Task, Verdict
from orpo_ray.teacher.caller import Asking
from orpo_ray.teacher.protocol import Sample
from orpo_ray.traces.counts import TraceCounts
from orpo_ray.traces.record import Trace
from orpo_ray.traces.selection import Choice, choose
from orpo_ray.traces.store import TraceDraft


@dataclass(frozen=True)
class Judging:
    """What a judge is built from.

    Attributes:
        model: the teacher's fingerprint.
        rouge_l_max: see `choose`.
        draft: where the traces are written; None counts them only.
        recorded: the traces were not sampled now, so seed and temperature mean nothing.
    """

    asking: Asking
    model: str
    rouge_l_max: float
    draft: TraceDraft | None
    recorded: bool = False


class TeacherJudge:
    """The callable class of `Dataset.map_batches`: one block of `ASKED` in, one line out (`asking`, and its counts).

    Args:
        judgings: one for each of the caller's askings.
    """

    def __init__(self, judgings: Sequence[Judging]) -> None:
        self._judgings = judgings

    def __call__(self, batch: pa.Table) -> pa.Table:
        which, block = _one_block(batch)
        judging = self._judgings[which]
        expected = len(judging.asking.rows(block))
        if batch.num_rows != expected:
            # A part must hold a block wholly, or a resumed phase would believe it finished.
            raise RuntimeError(f"Ray Data cut block {block}: {batch.num_rows} of its {expected} rows came")
        rows = judging.asking.task.rows()
        traces: list[Trace] = []
        for line in batch.to_pylist():
            samples = [Sample(*item) for item in zip(line["texts"], line["truncated"], strict=True)]
            traces += _judge(judging, rows[line["position"]], samples)
        if judging.draft is not None:
            judging.draft.write(block, traces, expected)
        return pa.Table.from_pylist([{"asking": which, **asdict(TraceCounts.of(traces, expected))}])


def _one_block(batch: pa.Table) -> tuple[int, int]:
    names = set(zip(batch.column("asking").to_pylist(), batch.column("block").to_pylist(), strict=True))
    if len(names) != 1:
        raise RuntimeError(f"Ray Data merged blocks: {sorted(names)} came together")
    (name,) = names
    return name


def _judge(judging: Judging, row: Row, samples: list[Sample]) -> list[Trace]:
    """One prompt's traces, with verdict and provenance."""
    asking = judging.asking
    verdicts, choices = judge_samples(asking.task, row, samples, judging.rouge_l_max)
    return [
        Trace(
            prompt_id=row.id,
            sample=place,
            text=sample.text,
            token_ids=None,
            verdict=str(verdict),
            truncated=sample.truncated,
            kept=choice is Choice.KEPT,
            near_duplicate=choice is Choice.NEAR_DUPLICATE,
            source="teacher",
            model=judging.model,
            seed=None if judging.recorded else asking.seed(row),
            temperature=None if judging.recorded else asking.temperature,
        )
        for place, (sample, verdict, choice) in enumerate(zip(samples, verdicts, choices, strict=True))
    ]


def judge_samples(
    task: Task, row: Row, samples: list[Sample], rouge_l_max: float
) -> tuple[list[Verdict], list[Choice]]:
    """Verify a prompt's traces and choose its positives: right, whole, and unlike those kept before.

    A right trace that the token limit cut has no end to learn from, so it is never a positive.

    Raises:
        VerifierError: the task's verifier broke; it names the row. Never a wrong answer.
    """
    verdicts = task.classify_all([(row, sample.text) for sample in samples])
    fits = [
        verdict is Verdict.RIGHT and not sample.truncated for verdict, sample in zip(verdicts, samples, strict=True)
    ]
    return verdicts, choose([sample.text for sample in samples], fits, rouge_l_max)
