"""The same distillation as one script, as it is written without this project: vLLM offline, TRL, save, a new engine, again.

    python -m benchmarks.by_hand run.json --json by_hand.json

It reads a run's configuration, so that both have the same models, splits, sizes and numbers, and takes this project's task
and ROUGE-L filter, the faster ones: everything else is vLLM's `LLM`, TRL's `ORPOTrainer` and transformers. One process
imports each library once; an engine has every core, and is the only thing at work. Whenever there is a new student there
is one new engine, which both evaluates it and samples its traces. The optimizer and its schedule go on over the epochs.

Left out is what such scripts leave out: it does not resume, keeps no journal and no ledger. TRL takes no pair without a
rejected trace, so prompts whose wrong traces are all missing are passed over, where a run trains them by the SFT term.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.outcome import keep
from orpo_ray.config import RunConfig, load_config
from orpo_ray.engine.vllm_engine import engine_arguments, prepare_environment
from orpo_ray.tasks import Row, Task, Verdict
from orpo_ray.tasks.prompts import rendered
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.diversity import select_diverse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a run's configuration")
    parser.add_argument("--json", type=Path, help="where to write what it took and gave")
    args = parser.parse_args()
    prepare_environment(os.cpu_count())
    config = load_config(args.config)
    clock = Clock()
    accuracy = Script(config, clock).run(Path(config.storage.path) / "by-hand")
    keep({"seconds": clock.seconds, "accuracy": accuracy}, args.json)


class Clock:
    """Seconds by kind of work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[kind] = round(self.seconds.get(kind, 0.0) + time.monotonic() - began, 2)


class Script:
    """The steps of the script; a class only so that they share configuration, task and clock."""

    def __init__(self, config: RunConfig, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._task: Task = split_of(config.task, "train", config.seed)
        self._train = list(self._task.rows())
        self._test = list(split_of(config.task, "test", config.seed).rows())

    def run(self, directory: Path) -> dict[str, float]:
        """Accuracy of teacher and students on the test split, in the order in which they came up."""
        config, clock = self._config, self._clock
        accuracy = {}
        with clock.of("imports"):
            import transformers
            import trl.experimental.orpo  # noqa: F401
            import vllm  # noqa: F401
        with self._engine(str(config.teacher.model), config.teacher.engine) as teacher:
            traces = self._sample(teacher, self._train, config.seed)
            accuracy["teacher"] = self._evaluate(teacher)
        positives = {
            row.id: self._diverse(row, texts, right=True) for row, texts in zip(self._train, traces, strict=True)
        }
        rows = [row for row in self._train if positives[row.id]]
        student = str(config.student.model)
        initial: dict[str, list[str]] = {}
        trainer = Training(config, clock, student, rows_per_epoch=len(rows))
        for epoch in range(1, config.train.epochs + 1):
            live = [
                row for row in rows if random.Random(f"{config.seed} {epoch} {row.id}").random() < config.policy.phi
            ]
            with self._engine(student, config.student.engine) as engine:
                if epoch == 1:
                    initial = self._negatives(engine, rows, config.seed + 1)
                fresh = self._negatives(engine, live, config.seed + 1 + epoch)
                accuracy[f"epoch {epoch - 1}"] = self._evaluate(engine)
            negatives = {row.id: fresh.get(row.id) or initial[row.id] for row in rows}
            with clock.of("train"):
                trainer.one_epoch(self._pairs(trainer.tokenizer, rows, positives, negatives, epoch), directory)
            student = str(directory / f"epoch-{epoch}")
            with clock.of("save"):
                trainer.model.save_pretrained(student)
                trainer.tokenizer.save_pretrained(student)
                transformers.GenerationConfig.from_pretrained(config.student.model).save_pretrained(student)
        with self._engine(student, config.student.engine) as engine:
            accuracy[f"epoch {config.train.epochs}"] = self._evaluate(engine)
        return accuracy

    @contextmanager
    def _engine(self, model: str, engine: Any) -> Iterator[Any]:
        from vllm import LLM

        with self._clock.of("engine starts"):
            llm = LLM(**engine_arguments(model, engine), disable_log_stats=True)
        yield llm
        with self._clock.of("engine starts"):
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()

    def _sample(self, llm: Any, rows: Sequence[Row], seed: int) -> list[list[str]]:
        from vllm import SamplingParams

        sampling = self._config.sampling
        parameters = [
            SamplingParams(
                n=sampling.k, temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens,
                seed=seed * 1_000_003 + place,
            )
            for place in range(len(rows))
        ]  # fmt: skip
        with self._clock.of("sample"):
            return self._answers(llm, rows, parameters)

    def _evaluate(self, llm: Any) -> float:
        from vllm import SamplingParams

        greedy = SamplingParams(temperature=0.0, max_tokens=self._config.eval_max_tokens)
        with self._clock.of("evaluate"):
            answers = self._answers(llm, self._test, greedy)
            verdicts = self._task.classify_all(
                [(row, texts[0]) for row, texts in zip(self._test, answers, strict=True)]
            )
        return verdicts.count(Verdict.RIGHT) / len(verdicts)

    def _answers(self, llm: Any, rows: Sequence[Row], parameters: Any) -> list[list[str]]:
        tokenizer = llm.get_tokenizer()
        prompts = [rendered(tokenizer, self._task.messages(row)) for row in rows]
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        return [[completion.text for completion in output.outputs] for output in outputs]

    def _negatives(self, llm: Any, rows: Sequence[Row], seed: int) -> dict[str, list[str]]:
        traces = self._sample(llm, rows, seed)
        return {row.id: self._diverse(row, texts, right=False) for row, texts in zip(rows, traces, strict=True)}

    def _diverse(self, row: Row, texts: Sequence[str], *, right: bool) -> list[str]:
        """Right traces, or wrong ones, that differ."""
        verdicts = self._task.classify_all([(row, text) for text in texts])
        fit = [
            text for text, verdict in zip(texts, verdicts, strict=True) if text and (verdict is Verdict.RIGHT) == right
        ]
        return [fit[place] for place in select_diverse(fit, self._config.sampling.rouge_l_max)]

    def _pairs(
        self,
        tokenizer: Any,
        rows: Sequence[Row],
        positives: dict[str, list[str]],
        negatives: dict[str, list[str]],
        epoch: int,
    ) -> list[dict[str, str]]:
        """As a run matches them: up to pairs_per_prompt a prompt, the shorter list cycled."""
        rng = random.Random(f"{self._config.seed} pairs {epoch}")
        pairs = []
        for row in rng.sample(rows, len(rows)):
            right, wrong = (rng.sample(found[row.id], len(found[row.id])) for found in (positives, negatives))
            if not wrong:
                continue
            prompt = rendered(tokenizer, self._task.messages(row))
            pairs += [
                {"prompt": prompt, "chosen": right[at % len(right)], "rejected": wrong[at % len(wrong)]}
                for at in range(min(self._config.train.pairs_per_prompt, max(len(right), len(wrong))))
            ]
        return pairs


class Training:
    """TRL's trainer, a new one each epoch, on one model, optimizer and schedule."""

    def __init__(self, config: RunConfig, clock: Clock, student: str, rows_per_epoch: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(os.cpu_count() or 1)
        train = config.train
        self._config = config
        with clock.of("train"):
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(student)
            if self.tokenizer.pad_token is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token
            self._optimizer = torch.optim.AdamW(
                self.model.parameters(), lr=train.learning_rate, betas=train.betas, weight_decay=train.weight_decay
            )
            steps = train.epochs * -(-rows_per_epoch // train.global_batch)
            self._schedule = transformers.get_cosine_schedule_with_warmup(
                self._optimizer, round(train.warmup_ratio * steps), steps
            )

    def one_epoch(self, pairs: list[dict[str, str]], directory: Path) -> None:
        from datasets import Dataset
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        train = self._config.train
        # As many pairs a step as a run's global batch of prompts has.
        batch = train.global_batch * train.pairs_per_prompt
        config = ORPOConfig(
            output_dir=str(directory), num_train_epochs=1, per_device_train_batch_size=batch, max_length=self._config.student.max_length,
            beta=train.lam, max_grad_norm=train.max_grad_norm, bf16=False, use_cpu=True, save_strategy="no", report_to="none",
            remove_unused_columns=False, disable_tqdm=True, logging_strategy="no", gradient_checkpointing=False,
        )  # fmt: skip
        trainer = ORPOTrainer(
            model=self.model, args=config, train_dataset=Dataset.from_list(pairs), processing_class=self.tokenizer,
            optimizers=(self._optimizer, self._schedule),
        )  # fmt: skip
        trainer.train()


if __name__ == "__main__":
    main()
