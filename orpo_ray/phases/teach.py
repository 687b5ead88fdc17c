"""TEACH: K traces of the teacher for each training prompt, verified, thinned to diverse right ones, stored.

The teacher is scored on the way: greedily, on the test split, in the same execution as the traces are sampled.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ray.data import Dataset

from orpo_ray.config import RunConfig
from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.errors import InputError, WaitTimeout
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.keys import teach_depends_on, teach_key, teacher_test_depends_on
from orpo_ray.phases.phase import Phase
from orpo_ray.phases.retry import our_error
from orpo_ray.phases.watched import last_rows_within
from orpo_ray.tasks import Task
from orpo_ray.tasks.split_of import split_of
from orpo_ray.teacher.access import open_teacher
from orpo_ray.teacher.caller import Asking
from orpo_ray.teacher.judging import Judging
from orpo_ray.teacher.pipeline import judged_blocks
from orpo_ray.traces.counts import TraceCounts
from orpo_ray.traces.store import TraceDraft, TraceStore

_PROGRESS_S = 1.0


class Teach(Phase):
    """The phase."""

    name = "TEACH"

    def key(self, context: RunContext) -> str:
        """Changes with whatever changes the teacher's traces or its accuracy; not with the policy or the student."""
        config = context.config
        train, test = _splits(config)
        return fingerprint(teach_depends_on(config, train), teacher_test_depends_on(config, test))

    def pairs_key(self, context: RunContext) -> str:
        """Changes with the teacher's traces only, not with the test split that the teacher is scored on."""
        config = context.config
        return teach_key(config, split_of(config.task, "train", config.seed))

    def run(self, context: RunContext, *, must_be_right: bool = True) -> dict[str, Any]:
        """Make, or find again, the teacher's traces, and score the teacher.

        Args:
            must_be_right: refuse a teacher of which no trace can be learned from.

        Returns:
            `key` and `path` of the store; its counts, as `TraceCounts.to_json`; and `test`: the teacher's greedy
            {correct, total} on the test split, None for a recorded one, which cannot be asked.

        Raises:
            InputError: the teacher cannot work as configured, or never answers right.
            TeacherError: the teacher failed on the way; what it said before is kept for the next start.
            VerifierError: the task's verifier broke; it names the row.
        """
        config, layout = context.config, context.layout
        train, test = _splits(config)
        depends_on = teach_depends_on(config, train)
        key = fingerprint(depends_on)
        draft = TraceDraft(layout.traces("teacher", key))
        store = TraceStore.find(draft.directory, key)
        score = layout.traces("teacher-test", fingerprint(teacher_test_depends_on(config, test)))
        for path in (draft.directory, score):
            context.say("traces.store", path=str(path))
        sampling = _sampling(config, train, draft, _teacher_name(depends_on))
        scoring = _scoring(config, test)

        unscored = config.teacher.backend != "recorded" and not score.is_file()
        left = [*([sampling] if store is None else []), *([scoring] if unscored else [])]
        _work(context, train, [work for work in left if work.blocks])
        store = store or draft.finish(sampling.judging.asking.blocks, key, depends_on)
        if unscored:
            _write(score, {"correct": scoring.counts.right, "total": scoring.counts.traces})
        if must_be_right and config.positives.fallback == "none":
            check_some_right(store)
        accuracy = json.loads(score.read_text(encoding="utf-8")) if score.is_file() else None
        return {"key": key, "path": str(store.directory), **store.counts.to_json(), "test": accuracy}

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """Whether the traces are on the storage."""
        return TraceStore.find(Path(result["path"]), result["key"]) is not None


@dataclass
class _Work:
    """Blocks of one split that the teacher is still to be asked for.

    Attributes:
        kind: of the events that tell progress.
        counts: over all blocks that are done, an earlier start's among them.
    """

    kind: str
    judging: Judging
    blocks: Sequence[int]
    counts: TraceCounts = field(default_factory=TraceCounts)


def _sampling(config: RunConfig, task: Task, draft: TraceDraft, teacher: str) -> _Work:
    """K traces of each row of `task`, but for the blocks that `draft` holds already."""
    sampling = config.sampling
    asking = Asking(task, sampling.k, sampling.temperature, sampling.top_p, sampling.max_tokens, config.seed)
    recorded = config.teacher.backend == "recorded"
    judging = Judging(asking, teacher, sampling.rouge_l_max, draft, recorded)
    return _Work("teach.progress", judging, sorted(set(range(asking.blocks)) - draft.blocks()), draft.counts())


def _scoring(config: RunConfig, task: Task) -> _Work:
    """One greedy answer to each row of `task`, only counted."""
    asking = Asking(task, k=1, temperature=0.0, top_p=1.0, max_tokens=config.eval_max_tokens, run_seed=config.seed)
    return _Work("teach.test", Judging(asking, model="", rouge_l_max=1.0, draft=None), range(asking.blocks))


def _work(context: RunContext, train: Task, left: Sequence[_Work]) -> None:
    """Do what is left, in one execution, telling progress. The teacher is not even started where nothing is."""
    if not left:
        return
    config, began = context.config, time.monotonic()
    context.say("teach.start", backend=config.teacher.backend)
    with open_teacher(config, train) as access:
        context.say("teach.ready", url=access.base_url, seconds=round(time.monotonic() - began, 1))
        blocks = [(place, block) for place, work in enumerate(left) for block in work.blocks]
        lines = judged_blocks(config.teacher, [work.judging for work in left], access, blocks)
        began = told = time.monotonic()
        traces = 0
        for place, counts in _counts(lines, config.limits.teach_s):
            work = left[place]
            work.counts += counts
            traces += counts.traces
            now, total = time.monotonic(), len(work.judging.asking.task.rows())
            if now - told >= _PROGRESS_S or work.counts.prompts == total:
                told = now
                context.say(
                    work.kind,
                    done=work.counts.prompts,
                    total=total,
                    traces_per_s=round(traces / (now - began), 2),
                    right=work.counts.right,
                    traces=work.counts.traces,
                )


def _counts(dataset: Dataset, limit_s: float) -> Iterator[tuple[int, TraceCounts]]:
    """What comes out of the pipeline. Raises an error of ours as itself, without what Ray wraps round it."""

    def silence(count: int) -> WaitTimeout:
        return WaitTimeout(
            f"limits.teach_s: the teacher's clients have finished no block of prompts for {limit_s:g} s, after {count} of "
            "them; the teacher hangs, or a node is gone and its clients find no other place. The same command goes on from "
            "what is finished"
        )

    try:
        for line in last_rows_within(dataset, limit_s, silence):
            yield line["asking"], TraceCounts.from_json(line)
    except Exception as error:
        ours = our_error(error)
        if ours is None:
            raise
        raise ours from None


def _write(file: Path, data: dict[str, int]) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(data), encoding="utf-8")
    partial.rename(file)


def check_some_right(store: TraceStore) -> None:
    """Raises InputError where no prompt has a trace to learn from, with the numbers and two samples."""
    counts = store.counts
    if counts.prompts_without_kept < counts.prompts:
        return
    traces = (trace for _, group in store.prompts() for trace in group)
    samples = "".join(
        f"\n  [{trace.verdict}{', cut by max_tokens' if trace.truncated else ''}] {_short(trace.text)}"
        for trace in islice(traces, 2)
    )
    hint = "raise sampling.max_tokens" if 2 * counts.truncated > counts.traces else "check teacher.model and task.name"
    raise InputError(
        f"the teacher never answers right: of {counts.traces} traces of {counts.prompts} prompts {counts.right} are right, "
        f"{counts.wrong} wrong, {counts.unparsed} without an answer; {counts.truncated} were cut by max_tokens, and a cut "
        f"trace is not learned from; {hint}{samples}"
    )


def _short(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[:limit] + "…"


def _splits(config: RunConfig) -> tuple[Task, Task]:
    """The training prompts, and the test prompts."""
    return split_of(config.task, "train", config.seed), split_of(config.task, "test", config.seed)


def _teacher_name(depends_on: dict[str, Any]) -> str:
    """What a trace's provenance calls the teacher."""
    teacher = depends_on["teacher"]
    return str(teacher.get("model") or teacher.get("traces"))
