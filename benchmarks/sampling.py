"""Tokens a second of a sampler in the gated stream against `vllm.LLM.generate` on the same prompts and seeds.

    python -m orpo_ray.demo.smollm2 models/smollm2-135m
    python -m benchmarks.sampling models/smollm2-135m --json sampling.json      # some six minutes

Both sides are started with the same engine arguments, answer the same requests in the same order, and begin their clock
when the engine is up and has answered one prompt. The stream's ends with the last batch in the reader's hands. In it are
the gate, reloads of whole weights behind every version (the same weights each time, so that the tokens stay the same),
their check by probe, verdicts, groups, the journal and Ray; the reader trains nothing, and publishes at once. The
baseline gets plain text of `LLM.generate`, and nothing else is done with it. Sides take turns, each in a process of its
own. On a machine that does other work, only tokens by the processor's time compare: of the engine and of all processes
round it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.outcome import keep, machine, show
from benchmarks.own_process import cpu_seconds, result_of

if TYPE_CHECKING:
    from orpo_ray.config import RunConfig

BAR = 0.95
OPTIONS = (
    "task", "path", "prompts", "k", "max_tokens", "temperature", "max_staleness", "global_batch", "block_rows", "refresh",
    "blocks_in_flight", "max_num_seqs", "kv_cache_mib", "dtype", "threads",
)  # fmt: skip


def main() -> None:
    args = arguments()
    if args.side:
        args.json.write_text(json.dumps({"stream": run_stream, "generate": run_generate}[args.side](args)))
        return
    options = {name: getattr(args, name) for name in OPTIONS}
    runs: dict[str, list[dict[str, Any]]] = {"generate": [], "stream": []}
    for number in range(args.rounds):
        # Every other round the other way round.
        for side in sorted(runs, reverse=number % 2 == 1):
            runs[side].append(result_of("benchmarks.sampling", str(args.model.resolve()), "--side", side, **options))
            print(json.dumps({"side": side, **runs[side][-1]}), file=sys.stderr, flush=True)
    kinds = ("tokens_per_s", "tokens_per_cpu_s")
    ratio = {kind: round(statistics.median(ratios(runs, kind)), 3) for kind in kinds}
    facts = {"model": args.model.name, **options, **machine()}
    keep({"settings": facts, "ratio": ratio, "bar": BAR, "runs": runs}, args.json)
    show(
        f"{args.model.name}, {args.prompts} prompts × {args.k} traces, versions every {args.refresh} steps of "
        f"{args.global_batch} prompts, staleness ≤ {args.max_staleness}, {args.threads} threads, {os.cpu_count()} cores",
        ("side", "tokens", "tokens/s of each round", "tokens/CPU-s of each round"),
        [
            (name, runs[side][0]["tokens"], *(", ".join(f"{run[kind]:.0f}" for run in runs[side]) for kind in kinds))
            for side, name in (("generate", "vllm.LLM.generate"), ("stream", "the gated stream"))
        ],
        [
            f"the stream by LLM.generate, median of rounds: {ratio['tokens_per_s']} by the wall clock (bar ≥ {BAR}), "
            f"{ratio['tokens_per_cpu_s']} by the processor"
        ],
    )


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="directory of the student")
    parser.add_argument("--task", default="arithmetic")
    parser.add_argument("--path", help="the task's rows, where it is one that needs data")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--k", type=int, default=8, help="traces a prompt")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max-staleness", type=int, default=1)
    parser.add_argument("--global-batch", type=int, default=8, help="prompts")
    parser.add_argument("--block-rows", type=int, default=4)
    parser.add_argument("--blocks-in-flight", type=int, default=4)
    parser.add_argument("--refresh", type=int, default=2, help="optimizer steps between two versions")
    parser.add_argument("--max-num-seqs", type=int, default=64)
    parser.add_argument("--kv-cache-mib", type=int, default=1024)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--side", choices=("stream", "generate"), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def ratios(runs: dict[str, list[dict[str, Any]]], kind: str) -> list[float]:
    """Stream by baseline, round by round: what slows a round slows both."""
    return [ours[kind] / theirs[kind] for ours, theirs in zip(runs["stream"], runs["generate"], strict=True)]


def configured(args: argparse.Namespace, directory: Path) -> RunConfig:
    """One sampler and one rank, all rows live."""
    from orpo_ray.config import parse_config

    engine = {
        "dtype": args.dtype, "max_model_len": 256 + args.max_tokens, "max_num_seqs": args.max_num_seqs,
        "kv_cache_mib": args.kv_cache_mib,
    }  # fmt: skip
    resources = {
        "block_rows": args.block_rows, "blocks_in_flight": args.blocks_in_flight, "threads": args.threads,
    }  # fmt: skip
    return parse_config(
        {
            "name": "sampling",
            "task": {"name": args.task, "path": args.path, "train_size": args.prompts},
            "teacher": {"backend": "recorded", "path": "nobody.jsonl"},
            "student": {"model": str(args.model.resolve()), "engine": engine},
            "sampling": {"k": args.k, "max_tokens": args.max_tokens, "temperature": args.temperature},
            "policy": {"phi": 1.0, "refresh": args.refresh, "max_staleness": args.max_staleness},
            "train": {"global_batch": args.global_batch, "workers": 1, "epochs": 1},
            "resources": resources,
            "storage": {"path": str(directory)},
        }
    )


def write_prompts(config: RunConfig, directory: Path) -> None:
    """A pair source of the task's training prompts; the only right trace of each is its bare answer."""
    from transformers import AutoTokenizer

    from orpo_ray.pairs import SourcePrompt, write_pair_source
    from orpo_ray.tasks.prompts import encode_completion, render_prompt
    from orpo_ray.tasks.split_of import split_of

    tokenizer = AutoTokenizer.from_pretrained(config.student.model)
    task = split_of(config.task, "train", config.seed)
    write_pair_source(
        directory,
        (
            SourcePrompt(
                prompt_id=row.id,
                row=json.dumps(dict(row.data)),
                prompt=render_prompt(tokenizer, task.messages(row)),
                positives=[encode_completion(tokenizer, f"The answer is {task.gold(row)}.")],
                negatives=[],
            )
            for row in task.rows()
        ),
    )


def run_stream(args: argparse.Namespace) -> dict[str, Any]:
    import ray

    from benchmarks.gated_stream import read_stream
    from benchmarks.same_weights import SameWeights
    from benchmarks.warm_sampler import WarmSampler, WarmSpec
    from orpo_ray.pairs import PairSource, from_table
    from orpo_ray.tasks.split_of import split_of
    from tests.tiny.cluster import start_ray

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = configured(args, directory)
        write_prompts(config, directory / "pairs")
        source = PairSource(directory / "pairs")
        weights = SameWeights(args.model, directory, source[0])
        spec = WarmSpec(
            config=config,
            task=split_of(config.task, "train", config.seed),
            attempt=1,
            initial=str(args.model),
            pairs=directory / "pairs",
            journal=directory / "journal",
            warm=directory / "warm",
        )
        geometry = config.geometry(len(source))
        tokens, ends = 0, (0.0, 0.0)

        def step(rank: int, done: int, batch: Any) -> None:
            nonlocal tokens, ends
            tokens += sum(group.sampled_tokens for group in from_table(batch))
            ends = time.time(), cpu_seconds()

        start_ray()
        with ThreadPoolExecutor(1) as beside:
            processor = beside.submit(cpu_seconds_once_there, spec.warm)
            read_stream(spec, geometry, WarmSampler, step, weights.publish)
        wall, processor_s = ends[0] - float(spec.warm.read_text()), ends[1] - processor.result()
        ray.shutdown()
    return speeds(tokens, wall, processor_s) | {"versions": geometry.version_at(geometry.steps)}


def cpu_seconds_once_there(file: Path) -> float:
    while not file.exists():
        time.sleep(0.05)
    return cpu_seconds()


def speeds(tokens: int, wall: float, processor: float) -> dict[str, Any]:
    """Tokens by the wall clock, and by the processor time of every process of the side."""
    return {
        "tokens": tokens,
        "seconds": round(wall, 2),
        "cpu_seconds": round(processor, 2),
        "tokens_per_s": round(tokens / wall, 1),
        "tokens_per_cpu_s": round(tokens / processor, 1),
    }


def run_generate(args: argparse.Namespace) -> dict[str, Any]:
    from orpo_ray.engine.vllm_engine import engine_arguments, prepare_environment
    from orpo_ray.pairs import PairSource, Plan

    prepare_environment(args.threads)
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = configured(args, directory)
        write_prompts(config, directory / "pairs")
        source = PairSource(directory / "pairs")
        plan = Plan(config.seed, (1.0,), config.geometry(len(source)), source.prompt_id)
        rows = [row for row in map(plan.row, range(config.geometry(len(source)).rows)) if row.real]
        llm = LLM(**engine_arguments(str(args.model), config.student.engine), disable_log_stats=True)
        prompts: list[Any] = [{"prompt_token_ids": source[row.position].prompt} for row in rows]
        llm.generate(prompts[0], SamplingParams(max_tokens=2), use_tqdm=False)
        parameters = [
            SamplingParams(n=args.k, temperature=args.temperature, max_tokens=args.max_tokens, seed=row.seed)
            for row in rows
        ]
        began, processor = time.monotonic(), cpu_seconds()
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        wall, processor_s = time.monotonic() - began, cpu_seconds() - processor
    tokens = sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
    return speeds(tokens, wall, processor_s)


if __name__ == "__main__":
    main()
