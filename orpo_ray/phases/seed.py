"""SEED: the initial student's traces, and with them the pair source that DISTILL draws from."""

import time
from pathlib import Path
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from orpo_ray.config import RunConfig
from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.errors import InputError, SamplerLostError
from orpo_ray.pairs import PairSource, write_pair_source
from orpo_ray.pairs.from_traces import with_negatives, with_positives, without_student
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.evaluator_actor import begin, running_evaluator
from orpo_ray.phases.phase import Phase
from orpo_ray.phases.places import ask_ray, find_places
from orpo_ray.phases.retry import decide, whole
from orpo_ray.phases.student import student_directory
from orpo_ray.phases.watched import rows_within
from orpo_ray.sampling.initial import BLOCK_PROMPTS, InitialSampler, InitialSpec
from orpo_ray.tasks import Task
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.counts import TraceCounts
from orpo_ray.traces.model_fingerprint import model_fingerprint
from orpo_ray.traces.store import TraceDraft, TraceStore
from orpo_ray.weights import Version


class Seed(Phase):
    """The phase."""

    name = "SEED"

    def key(self, context: RunContext) -> str:
        """Changes with whatever changes the initial student's traces or the pair source."""
        config = context.config
        return fingerprint(_traces_made_from(context), config.negatives_source, config.positives.model_dump())

    def run(self, context: RunContext) -> dict[str, Any]:
        """Sample, judge and store the initial student's traces, unless nothing is made of them; write the pair source."""
        config, layout = context.config, context.layout
        student = student_directory(config)
        task = split_of(config.task, "train", config.seed)
        positives = layout.pairs / "positives"
        teacher = _teacher_store(context)
        tokenizer = _tokenizer(config, student)
        gold: list[str] = []
        count = write_pair_source(positives, with_positives(config, task, teacher, tokenizer, gold))
        if not count:
            raise InputError("the teacher has no right trace that counts, and no row brings a solution of its own")
        shared = {"source": config.negatives_source, "gold": len(gold), "prompts": count}
        if config.negatives_source != "student":
            found = {"negatives": 0, "near_duplicates": 0, "never_wrong": 0}
            seen = PairSource(positives)
            write_pair_source(layout.pairs, without_student(config, task, teacher, tokenizer, seen, found))
            return shared | found
        key = traces_key(context)
        directory = layout.traces("student", key)
        store = TraceStore.find(directory, key) or self._sample(context, task, student, directory, count, key)
        counts = store.counts
        _check_some_wrong(config.student.model, counts)
        write_pair_source(layout.pairs, with_negatives(PairSource(positives), store))
        return shared | {
            "path": str(directory),
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
        behind = "path" not in result or Path(result["path"]).is_dir()
        return behind and (context.layout.pairs / "source.arrow").is_file()

    def _sample(
        self, context: RunContext, task: Task, student: Path, directory: Path, count: int, key: str
    ) -> TraceStore:
        config = context.config
        draft = TraceDraft(directory)
        context.say("traces.store", path=str(directory))
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
                context.say("fault", error=whole(error))
                context.say("note", text=decision.reason)
        return draft.finish(blocks, key, _traces_made_from(context))

    def _sample_blocks(self, context: RunContext, spec: InitialSpec, missing: list[int], count: int) -> None:
        # The last block may be a short one.
        to_do = sum(min(BLOCK_PROMPTS, count - block * BLOCK_PROMPTS) for block in missing)
        done, traces, started = count - to_do, 0, time.monotonic()
        resources, limits = context.config.resources, context.config.limits
        sampled = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
            InitialSampler,
            fn_constructor_args=(spec,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=find_places(context.config, ask_ray, "SEED").samplers,
                max_tasks_in_flight_per_actor=resources.blocks_in_flight,
                max_concurrent_calls_per_actor=resources.blocks_in_flight,
            ),
            num_cpus=resources.sampler_cpus,
            num_gpus=resources.sampler_gpus or None,
            label_selector=resources.node_labels("sampler") or None,
            max_restarts=limits.failures,
            max_task_retries=limits.failures,
        )
        # Else Ray Data wraps what an actor raises, and pickling then loses the error of ours inside.
        sampled.context.raise_original_map_exception = True
        patience = limits.start_s + limits.generate_s

        def silence(count: int) -> SamplerLostError:
            return SamplerLostError(
                f"limits.start_s and generate_s: the samplers have finished no block for {patience:g} s, after {count} of "
                "them; one is gone, or hangs"
            )

        for row in rows_within(sampled, patience, silence):
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


def traces_key(context: RunContext) -> str:
    """Under which the initial student's traces are found again."""
    return fingerprint(_traces_made_from(context))


def _traces_made_from(context: RunContext) -> dict[str, Any]:
    """All that the initial student's traces depend on; how they are used is not among it, so that runs share them."""
    config = context.config
    return {
        "teacher": context.results["TEACH"]["key"],
        "student": model_fingerprint(config.student.model),
        "sampling": config.sampling.model_dump(),
        "negatives": config.negatives.model_dump(exclude={"source"}),
        "fallback": config.positives.fallback,
        "context": config.student.engine.max_model_len,
        "seed": config.seed,
    }


def _teacher_store(context: RunContext) -> TraceStore:
    result = context.results["TEACH"]
    store = TraceStore.find(Path(result["path"]), result["key"])
    if store is None:
        raise InputError(f"{result['path']}: the teacher's traces are gone; run again to make them anew")
    return store


def _tokenizer(config: RunConfig, student: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(student), trust_remote_code=config.student.trust_remote_code)
