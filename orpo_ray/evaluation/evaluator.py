"""The one evaluator of a run: a vLLM engine that reloads each published version, beside training, and never stops it.

It takes versions from the board in their order, answers the held-out prompts, and writes

    evaluations/epoch-002-test.json

with counts and a few sample traces. Epoch 0 is the initial student.
"""

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.engine.student import end_with_dead_engine, start_student
from orpo_ray.engine.vllm_engine import Completion, Draw, Engine
from orpo_ray.errors import OrpoRayError, WaitTimeout
from orpo_ray.evaluation.several_answers import several_answers
from orpo_ray.pairs.draw import draw
from orpo_ray.tasks import Row, Task, Verdict
from orpo_ray.tasks.prompts import render_prompt
from orpo_ray.tracking.meter import record
from orpo_ray.tracking.told import tell
from orpo_ray.weights import Version
from orpo_ray.weights.loading import load_version, stored
from orpo_ray.weights.published import IncompleteVersionError


@dataclass(frozen=True)
class EvaluatorSpec:
    """What an evaluator is built from.

    Attributes:
        tasks: the held-out rows by split.
        keys: the fingerprint of how each split is evaluated.
        initial: directory of the initial student.
        output: directory of the evaluation files.
    """

    config: RunConfig
    tasks: dict[str, Task]
    keys: dict[str, str]
    initial: str
    output: Path


class Evaluator:
    """An async Ray actor; see the module's docstring."""

    def __init__(self, spec: EvaluatorSpec) -> None:
        self._spec = spec
        self._engine: Engine | None = None
        self._loaded: str | None = None
        self._prompts: dict[str, list[tuple[Row, list[int]]]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._at, self._since = "idle", time.monotonic()

    async def follow(self, board: Any) -> int:
        """Evaluate what the board hands out until training is finished; how many versions that were.

        Started again where its process died, it goes on: the board hands out what is not done, files tell what is.
        """
        done = 0
        while (version := await board.next_evaluation.remote()) is not None:
            try:
                await self.evaluate(version)
                done += 1
            except IncompleteVersionError:
                # A new attempt has dropped the timeline that it belonged to, or will: samplers refuse it as well.
                pass
            await board.evaluated.remote(version, self._needed())
        return done

    async def doing(self) -> str:
        """What it is at, in words, for one who waits in vain."""
        return f"it is {self._at} since {time.monotonic() - self._since:.0f} s"

    async def evaluate(self, version: Version) -> list[dict[str, Any]]:
        """Accuracy of a version on every held-out split; evaluations that are on the storage are not repeated.

        Raises:
            IncompleteVersionError: the version is not whole, or its directory went while it was evaluated.
        """
        try:
            async with self._one_at_a_time:
                try:
                    return [await self._evaluate(split, version) for split in self._spec.tasks]
                finally:
                    self._begin("idle")
        except OrpoRayError:
            raise
        except Exception:
            end_with_dead_engine(self._engine)
            raise

    async def stop(self) -> None:
        """End the engine's processes."""
        if self._engine is not None:
            self._engine.stop()
            self._engine = None

    async def _evaluate(self, split: str, version: Version) -> dict[str, Any]:
        file = evaluation_file(self._spec.output, version.epoch or 0, split)
        if file.exists():
            found: dict[str, Any] = json.loads(file.read_text())
            # A file of the same epoch may come from a timeline that no checkpoint committed.
            if found["path"] == version.path and found.get("key") == self._spec.keys[split]:
                return found
        await self._load(version)
        answered = await self._answer(split, version)
        # An attempt that has begun meanwhile drops what it does not go on from, evaluations too.
        await stored(version, self._spec.config.limits.reload_s)
        write_evaluation(file, answered)
        record("orpo_eval_accuracy", answered["correct"] / answered["total"], split=split)
        record("orpo_eval_epoch", answered["epoch"], split=split)
        record("orpo_eval_tokens_total", answered["mean_tokens"] * answered["total"], split=split)
        counts = {name: answered[name] for name in ("epoch", "version", "correct", "total", "seconds")}
        tokens = round(answered["mean_tokens"] * answered["total"])
        tell("evaluator.done", phase="evaluate", split=split, tokens=tokens, **counts)
        return answered

    async def _load(self, version: Version) -> None:
        self._begin(f"loading version {version.number} from {version.path}")
        engine = await self._started()
        if version.path == self._loaded:
            return
        self._loaded = None  # where a load fails, nobody knows which weights there are
        await load_version(engine, version, self._spec.config.limits.reload_s)
        self._loaded = version.path

    def _begin(self, what: str) -> None:
        self._at, self._since = what, time.monotonic()

    async def _answer(self, split: str, version: Version) -> dict[str, Any]:
        config, started = self._spec.config, time.monotonic()
        self._begin(f"answering the {split} split with version {version.number}")
        prompts = await asyncio.to_thread(self._split_prompts, split)
        engine = await self._started()
        greedy = Draw(k=1, temperature=config.eval.temperature, max_tokens=config.eval_max_tokens, seed=config.seed)
        try:
            async with asyncio.timeout(config.limits.evaluate_s):
                answers = await engine.sample_all([prompt for _, prompt in prompts], [greedy] * len(prompts))
        except TimeoutError:
            raise WaitTimeout(
                f"limits.evaluate_s: {len(prompts)} {split} prompts were not answered by version {version.number} "
                f"within {config.limits.evaluate_s:g} s"
            ) from None
        completions = [answer[0] for answer in answers]
        rows = [row for row, _ in prompts]
        task = self._spec.tasks[split]
        verdicts = await asyncio.to_thread(
            lambda: task.classify_all([(row, item.text) for row, item in zip(rows, completions, strict=True)])
        )
        several = await self._several(split, version, prompts)
        return {
            "epoch": version.epoch or 0,
            "step": version.step,
            "version": version.number,
            "split": split,
            "key": self._spec.keys[split],
            "correct": sum(verdict is Verdict.RIGHT for verdict in verdicts),
            "total": len(verdicts),
            "parsed": sum(verdict is not Verdict.UNPARSED for verdict in verdicts),
            "truncated": sum(item.truncated for item in completions),
            "mean_tokens": sum(len(item.token_ids) for item in completions) / len(completions),
            "seconds": round(time.monotonic() - started, 3),
            "path": version.path,
            **several,
            "right": [row.id for row, verdict in zip(rows, verdicts, strict=True) if verdict is Verdict.RIGHT],
            "samples": self._samples(task, rows, completions, verdicts),
        }

    async def _several(
        self, split: str, version: Version, prompts: list[tuple[Row, list[int]]]
    ) -> dict[str, float | int]:
        """pass@k and majority@k, where eval.k asks for them and this is a student that they are wanted of."""
        config, epoch = self._spec.config, version.epoch or 0
        wanted = epoch in (0, config.train.epochs) or config.export.select == "best"
        if config.eval.k == 1 or split != "test" or not wanted:
            return {}
        self._begin(f"sampling {config.eval.k} answers to each {split} question with version {version.number}")
        engine = await self._started()
        draws = [
            Draw(
                k=config.eval.k,
                temperature=config.eval.sample_temperature,
                max_tokens=config.eval_max_tokens,
                seed=draw(config.seed, "evaluation", row.id) >> 33,
            )
            for row, _ in prompts
        ]
        try:
            async with asyncio.timeout(config.limits.evaluate_s):
                answers = await engine.sample_all([prompt for _, prompt in prompts], draws)
        except TimeoutError:
            raise WaitTimeout(
                f"limits.evaluate_s: {config.eval.k} answers to each of {len(prompts)} {split} prompts were not sampled by "
                f"version {version.number} within {config.limits.evaluate_s:g} s"
            ) from None
        task = self._spec.tasks[split]
        texts = [(row, [item.text for item in drawn]) for (row, _), drawn in zip(prompts, answers, strict=True)]
        return await asyncio.to_thread(several_answers, task, texts)

    def _samples(
        self, task: Task, rows: list[Row], completions: list[Completion], verdicts: list[Verdict]
    ) -> list[dict[str, str]]:
        kept = self._spec.config.eval.samples_kept
        return [
            {
                "prompt_id": row.id,
                "prompt": task.prompt(row),
                "text": item.text,
                "gold": task.gold(row),
                "verdict": str(verdict),
            }
            for row, item, verdict in list(zip(rows, completions, verdicts, strict=True))[:kept]
        ]

    def _split_prompts(self, split: str) -> list[tuple[Row, list[int]]]:
        if split not in self._prompts:
            from transformers import AutoTokenizer

            student = self._spec.config.student
            tokenizer = AutoTokenizer.from_pretrained(self._spec.initial, trust_remote_code=student.trust_remote_code)
            task = self._spec.tasks[split]
            self._prompts[split] = [(row, render_prompt(tokenizer, task.messages(row))) for row in task.rows()]
        return self._prompts[split]

    async def _started(self) -> Engine:
        if self._engine is None:
            self._engine = await start_student(self._spec.config, self._spec.initial)
            record("orpo_engine_starts_total", phase="evaluate", group="evaluator")
            self._loaded = self._spec.initial
        return self._engine

    def _needed(self) -> list[str]:
        """Directories whose weights are needed once they are evaluated: the best on validation so far, if any."""
        if self._spec.config.export.select == "last":
            return []
        files = sorted(self._spec.output.glob("epoch-*-validation.json"))
        found = [json.loads(file.read_text()) for file in files]
        trained = [evaluation for evaluation in found if evaluation["epoch"] > 0]
        # Of equals the earliest, as EXPORT chooses.
        return [max(trained, key=lambda item: (item["correct"], -item["epoch"]))["path"]] if trained else []


def evaluation_file(directory: Path, epoch: int, split: str) -> Path:
    """Where the evaluation of the student after `epoch` epochs on `split` is written."""
    return directory / f"epoch-{epoch:03d}-{split}.json"


def write_evaluation(file: Path, data: dict[str, Any]) -> None:
    """Write an evaluation; the ids of right answers, of which there may be thousands, on one line."""
    rest = {name: value for name, value in data.items() if name != "right"}
    right = json.dumps(data["right"], ensure_ascii=False)
    text = json.dumps(rest, indent=1, ensure_ascii=False).removesuffix("\n}")
    _write_whole(file, f'{text},\n "right": {right}\n}}\n')


def drop_other_evaluations(directory: Path, keys: dict[str, str]) -> list[str]:
    """Remove evaluations whose key is not their split's; the names of the files removed."""
    others = []
    for file in sorted(directory.glob("epoch-*.json")):
        evaluation = json.loads(file.read_text())
        if keys.get(evaluation["split"]) != evaluation.get("key"):
            file.unlink()
            others.append(file.name)
    return others


def write_json(file: Path, data: dict[str, Any]) -> None:
    """Write a JSON file so that a reader sees all of it or nothing."""
    _write_whole(file, json.dumps(data, indent=1, ensure_ascii=False))


def _write_whole(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)
