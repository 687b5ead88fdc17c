"""SEED: the initial student's traces, and with them the pair source that DISTILL draws from."""

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.errors import DataError, InputError
from orpo_ray.pairs import PairSource, SourcePrompt, write_pair_source
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.evaluator_actor import begin, running_evaluator
from orpo_ray.phases.retry import decide
from orpo_ray.phases.student import student_directory
from orpo_ray.sampling.initial import BLOCK_PROMPTS, InitialSampler, InitialSpec
from orpo_ray.tasks import Task
from orpo_ray.tasks.prompts import encode_completion, render_prompt
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.counts import TraceCounts
from orpo_ray.traces.model_fingerprint import model_fingerprint
from orpo_ray.traces.store import TraceDraft, TraceStore
from orpo_ray.weights import Version


class Seed:
    """The phase."""

    name = "SEED"

    def key(self, context: RunContext) -> str:
        """Changes with whatever changes the initial student's traces or the pair source."""
        return fingerprint(_made_from(context))

    def run(self, context: RunContext) -> dict[str, Any]:
        """Sample, judge and store the initial student's traces; write the pair source."""
        config, layout = context.config, context.layout
        student = student_directory(config)
        task = split_of(config.task, "train", config.seed)
        positives = layout.pairs / "positives"
        teacher = _teacher_store(context)
        count = write_pair_source(positives, _with_positives(context, task, teacher, student))
        key = self.key(context)
        directory = layout.traces("student", key)
        store = TraceStore.find(directory, key) or self._sample(context, task, student, directory, count, key)
        counts = store.counts
        _check_some_wrong(config.student.model, counts)
        write_pair_source(layout.pairs, _with_negatives(PairSource(positives), store))
        return {
            "path": str(directory),
            "prompts": counts.prompts,
            "traces": counts.traces,
            "right": counts.right,
            "wrong": counts.wrong,
            "unparsed": counts.unparsed,
            "truncated": counts.truncated,
            "negatives": counts.kept,
            "near_duplicates": counts.near_duplicates,
            "never_wrong": counts.prompts_without_kept,
        }

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """Whether the pair source and the traces behind it are on the storage."""
        return (context.layout.pairs / "source.arrow").is_file() and Path(result["path"]).is_dir()

    def _sample(
        self, context: RunContext, task: Task, student: Path, directory: Path, count: int, key: str
    ) -> TraceStore:
        config = context.config
        draft = TraceDraft(directory)
        blocks = -(-count // BLOCK_PROMPTS)
        spec = InitialSpec(
            config=config,
            task=task,
            initial=str(student),
            model=model_fingerprint(student),
            prompts=context.layout.pairs / "positives",
            store=directory,
        )
        failures = 0
        while missing := sorted(set(range(blocks)) - draft.blocks()):
            if "before" not in context.live:
                # Beside the samplers' engines, whose start leaves most of a machine idle, and not beside the trainers'.
                initial = Version(0, str(student), step=0, epoch=0)
                begin(context, "before", running_evaluator(context).evaluate.remote(initial))
            try:
                self._sample_blocks(context, spec, missing, count)
            except Exception as error:
                failures += 1
                decision = decide(
                    error,
                    failures,
                    config.limits.failures,
                    what="sampling the initial student",
                    then="what is missing is sampled again",
                )
                if not decision.retry:
                    raise decision.error from None
                context.say("note", text=decision.reason)
        return draft.finish(blocks, key, _made_from(context))

    def _sample_blocks(self, context: RunContext, spec: InitialSpec, missing: list[int], count: int) -> None:
        # The last block may be a short one.
        to_do = sum(min(BLOCK_PROMPTS, count - block * BLOCK_PROMPTS) for block in missing)
        done, traces, started = count - to_do, 0, time.monotonic()
        resources, failures = context.config.resources, context.config.limits.failures
        sampled = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
            InitialSampler,
            fn_constructor_args=(spec,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=resources.samplers, max_tasks_in_flight_per_actor=resources.blocks_in_flight
            ),
            max_concurrency=resources.blocks_in_flight,
            num_cpus=resources.sampler_cpus,
            num_gpus=resources.sampler_gpus or None,
            label_selector=resources.node_labels("sampler") or None,
            max_restarts=failures,
            max_task_retries=failures,
        )
        # Else Ray Data wraps what an actor raises, and pickling then loses the error of ours inside.
        sampled.context.raise_original_map_exception = True
        for row in sampled.iter_rows():
            done, traces = done + row["prompts"], traces + row["traces"]
            rate = traces / (time.monotonic() - started)
            context.say("seed.progress", done=done, total=count, traces_per_s=rate)


def _check_some_wrong(student: str, counts: TraceCounts) -> None:
    """Raises InputError where no trace can be rejected, with the numbers: ORPO would have nothing to contrast."""
    if counts.kept:
        return
    dropped = counts.traces - counts.right
    hint = (
        "take a harder task or a smaller student"
        if not dropped
        else f"{counts.unparsed} had no answer that can be read and {counts.truncated} were cut by sampling.max_tokens: "
        "raise it, or keep such traces by negatives.unparsed and negatives.truncated"
    )
    raise InputError(
        f"student.model: {student} made no wrong trace that counts in {counts.traces} traces of {counts.prompts} prompts "
        f"({counts.right} are right), so there is nothing to contrast; {hint}"
    )


def _made_from(context: RunContext) -> dict[str, Any]:
    """All that the initial student's traces and the pair source depend on."""
    config = context.config
    return {
        "teacher": context.results["TEACH"]["key"],
        "student": model_fingerprint(config.student.model),
        "sampling": config.sampling.model_dump(),
        "negatives": config.negatives.model_dump(),
        "context": config.student.engine.max_model_len,
        "seed": config.seed,
    }


def _teacher_store(context: RunContext) -> TraceStore:
    result = context.results["TEACH"]
    store = TraceStore.find(Path(result["path"]), result["key"])
    if store is None:
        raise InputError(f"{result['path']}: the teacher's traces are gone; run again to make them anew")
    return store


def _with_positives(context: RunContext, task: Task, store: TraceStore, student: Path) -> Iterator[SourcePrompt]:
    """Every prompt that has a right teacher trace, in the student's token ids."""
    from transformers import AutoTokenizer

    config = context.config
    tokenizer = AutoTokenizer.from_pretrained(str(student), trust_remote_code=config.student.trust_remote_code)
    rows = {row.id: row for row in task.rows()}
    room = config.student.engine.max_model_len - config.sampling.max_tokens
    for prompt_id, traces in store.prompts():
        positives = [trace.text for trace in traces if trace.kept]
        if not positives:
            continue
        row = rows[prompt_id]
        prompt = render_prompt(tokenizer, task.messages(row))
        if len(prompt) > room:
            raise DataError(
                f"task row {prompt_id}: its prompt has {len(prompt)} tokens, and student.engine.max_model_len "
                f"{config.student.engine.max_model_len} less sampling.max_tokens {config.sampling.max_tokens} leaves "
                f"{room}; raise the one or lower the other"
            )
        yield SourcePrompt(
            prompt_id=prompt_id,
            row=json.dumps(dict(row.data), ensure_ascii=False),
            prompt=prompt,
            positives=[encode_completion(tokenizer, text) for text in positives],
            negatives=[],
        )


def _with_negatives(source: PairSource, store: TraceStore) -> Iterator[SourcePrompt]:
    """The same prompts with the initial student's negatives, which the store holds in the same order."""
    stored = store.prompts()
    upcoming = next(stored, None)
    for at in range(len(source)):
        prompt = source[at]
        negatives: list[list[int]] = []
        if upcoming is not None and upcoming[0] == prompt.prompt_id:
            negatives = [trace.token_ids for trace in upcoming[1] if trace.kept and trace.token_ids]
            upcoming = next(stored, None)
        yield SourcePrompt(prompt.prompt_id, prompt.row, prompt.prompt, prompt.positives, negatives)
    leftover = list(itertools.islice(stored, 1))
    if upcoming is not None or leftover:
        raise RuntimeError(f"{store.directory}: its prompts are not those of the pair source")
