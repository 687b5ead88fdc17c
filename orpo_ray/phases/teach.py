"""TEACH: K traces of the teacher for each training prompt, verified, thinned to diverse right ones, stored.

    block numbers ─► TeacherCaller ──HTTP──► teacher
                          │ completions
                          ▼
                     TeacherJudge: verify, ROUGE-L filter ─► traces/teacher-<key>.partial/part-….parquet
                          │ counts
                          ▼
                      progress, then manifest and rename

One streaming execution of Ray Data; the driver sees counts only, so its memory does not grow with the data.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orpo_ray.config import RunConfig
from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.errors import InputError
from orpo_ray.phases.context import RunContext, Say
from orpo_ray.phases.keys import teach_depends_on, teacher_test_depends_on
from orpo_ray.phases.retry import our_error
from orpo_ray.tasks import Task
from orpo_ray.tasks.split_of import split_of
from orpo_ray.teacher.access import TeacherAccess, open_teacher
from orpo_ray.teacher.caller import BLOCK_PROMPTS, Asking, TeacherCaller
from orpo_ray.teacher.judging import Judging, TeacherJudge
from orpo_ray.traces.counts import TraceCounts
from orpo_ray.traces.store import TraceDraft, TraceStore

# One client process keeps this many requests in flight without becoming the bottleneck.
_REQUESTS_A_CLIENT = 256
_PROGRESS_S = 1.0


class Teach:
    """The phase."""

    name = "TEACH"

    def key(self, context: RunContext) -> str:
        """Changes with whatever changes the teacher's traces or its accuracy; not with the policy or the student."""
        config = context.config
        train, test = _splits(config)
        return fingerprint(teach_depends_on(config, train), teacher_test_depends_on(config, test))

    def run(self, context: RunContext) -> dict[str, Any]:
        """Make, or find again, the teacher's traces, and score the teacher.

        Returns:
            `key` and `path` of the store; its counts, as `TraceCounts.to_json`; and `test`: the teacher's greedy
            {correct, total} on the test split, None for a recorded one, which cannot be asked.

        Raises:
            InputError: the teacher cannot work as configured, or never answers right.
            TeacherError: the teacher failed on the way; what it said before is kept for the next start.
            VerifierError: the task's verifier broke; it names the row.
        """
        config = context.config
        train, test = _splits(config)
        depends_on = teach_depends_on(config, train)
        key = fingerprint(depends_on)
        directory = context.layout.traces("teacher", key)
        accuracy = None
        with ExitStack() as stack:
            teacher = _Lazily(stack, config, train, context.say)
            store = TraceStore.find(directory, key) or _sample(context, train, teacher, directory, key, depends_on)
            _check_some_right(store)
            if config.teacher.backend != "recorded":
                file = context.layout.traces("teacher-test", fingerprint(teacher_test_depends_on(config, test)))
                accuracy = _read(file) or _score(context, test, teacher, file)
        return {"key": key, "path": str(directory), **store.counts.to_json(), "test": accuracy}

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """Whether the traces are on the storage."""
        return TraceStore.find(Path(result["path"]), result["key"]) is not None


def _splits(config: RunConfig) -> tuple[Task, Task]:
    """The training prompts, and the test prompts."""
    return split_of(config.task, "train", config.seed), split_of(config.task, "test", config.seed)


class _Lazily:
    """The teacher, opened when it is first needed: finished work is found without starting it."""

    def __init__(self, stack: ExitStack, config: RunConfig, task: Task, say: Say) -> None:
        self._stack, self._config, self._task, self._say = stack, config, task, say
        self._access: TeacherAccess | None = None

    def __call__(self) -> TeacherAccess:
        if self._access is None:
            began = time.monotonic()
            self._say("teach.start", backend=self._config.teacher.backend)
            self._access = self._stack.enter_context(open_teacher(self._config, self._task))
            self._say("teach.ready", url=self._access.base_url, seconds=round(time.monotonic() - began, 1))
        return self._access


def _sample(
    context: RunContext, task: Task, teacher: _Lazily, directory: Path, key: str, depends_on: dict[str, Any]
) -> TraceStore:
    """Ask for every block that is not written yet, then finish the store."""
    config, draft = context.config, TraceDraft(directory)
    sampling = config.sampling
    asking = Asking(task, sampling.k, sampling.temperature, sampling.top_p, sampling.max_tokens, config.seed)
    recorded = config.teacher.backend == "recorded"
    judging = Judging(asking, _teacher_name(depends_on), sampling.rouge_l_max, draft, recorded)
    pending = sorted(set(range(asking.blocks)) - draft.blocks())
    if pending:
        before = draft.counts()
        _run(context, "teach.progress", judging, teacher(), pending, before)
    return draft.finish(asking.blocks, key, depends_on)


def _score(context: RunContext, task: Task, teacher: _Lazily, file: Path) -> dict[str, int]:
    """The teacher's greedy accuracy on the rows of `task`, kept in `file`."""
    config = context.config
    asking = Asking(task, k=1, temperature=0.0, top_p=1.0, max_tokens=config.eval_max_tokens, run_seed=config.seed)
    judging = Judging(asking, "", 1.0, draft=None)
    counts = _run(context, "teach.test", judging, teacher(), range(asking.blocks), TraceCounts())
    accuracy = {"correct": counts.right, "total": counts.traces}
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(accuracy), encoding="utf-8")
    partial.rename(file)
    return accuracy


def _read(file: Path) -> dict[str, int] | None:
    if not file.is_file():
        return None
    accuracy: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))
    return accuracy


def _run(
    context: RunContext, kind: str, judging: Judging, access: TeacherAccess, blocks: Sequence[int], done: TraceCounts
) -> TraceCounts:
    """Ask for `blocks` and judge them, telling progress; `done` counts what was there before. Returns all counts."""
    began = told = time.monotonic()
    total, fresh = len(judging.asking.task.rows()), TraceCounts()
    for counts in _counts(judge_stream(context.config, judging, access, blocks)):
        fresh = fresh + counts
        both, now = done + fresh, time.monotonic()
        if now - told >= _PROGRESS_S or both.prompts == total:
            told = now
            rate = round(fresh.traces / (now - began), 2)
            context.say(kind, done=both.prompts, total=total, traces_per_s=rate, right=both.right, traces=both.traces)
    return done + fresh


def judge_stream(config: RunConfig, judging: Judging, access: TeacherAccess, blocks: Sequence[int]) -> Dataset:
    """The pipeline, not yet running: one line of counts for each of `blocks`."""
    # Else Ray Data wraps what an actor raises, and pickling then loses the error of ours inside.
    DataContext.get_current().raise_original_map_exception = True
    concurrency = config.teacher.concurrency
    clients = 1 if config.teacher.backend == "recorded" else -(-concurrency // _REQUESTS_A_CLIENT)
    # Enough blocks that the bound on requests, not a block's last trace, is what a client waits for.
    in_flight = 2 + concurrency // clients // BLOCK_PROMPTS
    placed: dict[str, Any] = {}
    if access.node is not None:
        placed["scheduling_strategy"] = NodeAffinitySchedulingStrategy(access.node, soft=False)
    asked = _numbers(blocks).map_batches(
        TeacherCaller,
        fn_constructor_args=(judging.asking, access, clients),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=clients, max_tasks_in_flight_per_actor=in_flight),
        max_concurrency=in_flight,
        num_cpus=0.1,
        **placed,
    )
    return asked.map_batches(
        TeacherJudge,
        fn_constructor_args=(judging,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=clients),
        num_cpus=0.5,
    )


def _numbers(blocks: Sequence[int]) -> Dataset:
    """`blocks` as a Dataset, one a block. Read in a few tasks and cut lazily: a task for each would cost memory."""
    places = ray.data.range(len(blocks), override_num_blocks=min(4, len(blocks)))
    return places.map_batches(_Pick(blocks), batch_format="pyarrow").repartition(
        target_num_rows_per_block=1, strict=True
    )


class _Pick:
    """From places in a list of blocks to the blocks."""

    def __init__(self, blocks: Sequence[int]) -> None:
        self._blocks = np.asarray(blocks, dtype=np.int64)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table({"id": self._blocks[batch.column("id").to_numpy()]})


def _counts(dataset: Dataset) -> Iterator[TraceCounts]:
    """Raises an error of ours as itself, without what Ray wraps round it."""
    try:
        for line in dataset.iter_rows():
            yield TraceCounts.from_json(line)
    except Exception as error:
        ours = our_error(error)
        if ours is None:
            raise
        raise ours from None


def _check_some_right(store: TraceStore) -> None:
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


def _teacher_name(depends_on: dict[str, Any]) -> str:
    """What a trace's provenance calls the teacher."""
    teacher = depends_on["teacher"]
    return str(teacher.get("model") or teacher.get("traces"))
