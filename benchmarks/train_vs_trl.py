"""Pairs per second and peak memory of the training core against TRL's ORPOTrainer: same model, pairs and threads.

    python benchmarks/train_vs_trl.py --out benchmarks/train_vs_trl.json
    python benchmarks/train_vs_trl.py --model qwen2-0.5b --lengths medqa --precision bf16 --threads 8

Weights and tokens are random: neither changes the work. Each side runs in a process of its own and takes the same
number of AdamW steps over the same pairs; the first step is left out. TRL's is the stock trainer on a data set of
single pairs, without gradient checkpointing. Times are given by the wall clock and by the processor: on a machine that
does other work, only the second compares.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from orpo_ray.training.batching import TokenGroup

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "smollm2-135m": (
        "Llama",
        {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
         "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
    ),
    "qwen2-0.5b": (
        "Qwen2",
        {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
}  # fmt: skip
LENGTHS = {"gsm8k": ((74, 25), (131, 45), (94, 40)), "medqa": ((210, 60), (190, 60), (180, 60))}
"""Mean and spread, in tokens, of prompts, chosen and rejected traces, end token included."""
EOS = 1


def main() -> None:
    args = arguments()
    if args.side:
        result = {"ours": run_ours, "trl": run_trl}[args.side](args)
        result["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        Path(args.out).write_text(json.dumps(result))
        return
    if args.profile:
        args.pairs_per_prompt = args.pairs_per_prompt[-1:]
        print(profile_ours(args))
        return
    rows = []
    asked = args.batch
    for pairs in args.pairs_per_prompt:
        # What a user of either would take: as large as the pairs of a prompt, in one go.
        args.batch = asked or max(4, pairs)
        row: dict[str, Any] = {"pairs_per_prompt": pairs}
        for side in ("trl", "ours"):
            row[side] = in_own_process(args, side, pairs)
            print(json.dumps({"pairs_per_prompt": pairs, "side": side, **row[side]}), file=sys.stderr, flush=True)
        rows.append(row)
    facts = {key: getattr(args, key) for key in ("model", "lengths", "precision", "threads", "steps", "pairs_per_step")}
    facts |= {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "token_budget": args.token_budget,
        "trl_batch": asked,
    }
    if args.out:
        Path(args.out).write_text(json.dumps({"settings": facts, "rows": rows}, indent=2) + "\n")
    print(table(facts, rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="smollm2-135m")
    parser.add_argument("--lengths", choices=LENGTHS, default="gsm8k")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--pairs-per-prompt", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--pairs-per-step", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="measured optimizer steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--batch", type=int, help="TRL's pairs a micro-batch; 4, or a prompt's pairs if more, where left out"
    )
    parser.add_argument("--token-budget", type=int, default=2560, help="our tokens a micro-batch")
    parser.add_argument("--out", help="where to write the results as JSON")
    parser.add_argument("--profile", action="store_true", help="only ours, one step, by operator: where its time goes")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(args: argparse.Namespace, side: str, pairs: int) -> dict[str, Any]:
    """Peak memory is a process's, and so is a warm allocator."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "result.json"
        command = [sys.executable, __file__, "--side", side, "--pairs-per-prompt", str(pairs), "--out", str(out)]
        for key in ("model", "lengths", "precision", "pairs_per_step", "steps", "threads", "batch", "token_budget"):
            command += [f"--{key.replace('_', '-')}", str(getattr(args, key))]
        root = Path(__file__).resolve().parents[1]
        environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "PYTHONPATH": str(root)}
        subprocess.run(command, check=True, env=environment, cwd=directory, stdout=sys.stderr)
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def student(args: argparse.Namespace) -> PreTrainedModel:
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    name, shape = MODELS[args.model]
    config = getattr(transformers, f"{name}Config")(**shape, max_position_embeddings=2048, eos_token_id=EOS)
    model: PreTrainedModel = getattr(transformers, f"{name}ForCausalLM")(config)
    return model.to(torch.bfloat16) if args.precision == "bf16" else model


def batches(args: argparse.Namespace) -> Iterator[list[TokenGroup]]:
    """The pair groups of each optimizer step, the first one for warming up."""
    import torch

    from orpo_ray.training.batching import TokenGroup

    (pairs,) = args.pairs_per_prompt
    generator = torch.Generator().manual_seed(0)
    vocabulary = MODELS[args.model][1]["vocab_size"]

    def tokens(mean: int, spread: int) -> tuple[int, ...]:
        length = max(8, round(float(torch.randn((), generator=generator)) * spread + mean))
        return (*torch.randint(2, vocabulary, (length - 1,), generator=generator).tolist(), EOS)

    prompt, chosen, rejected = LENGTHS[args.lengths]
    for _ in range(args.steps + 1):
        yield [
            TokenGroup(
                tokens(*prompt)[:-1],
                tuple(tokens(*chosen) for _ in range(pairs)),
                tuple(tokens(*rejected) for _ in range(pairs)),
                tuple((i, i) for i in range(pairs)),
            )
            for _ in range(args.pairs_per_step // pairs)
        ]


class Clock:
    """Seconds from the end of the first step to the end of the last."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        self._marks.append((time.perf_counter(), time.process_time()))

    def results(self, args: argparse.Namespace, computed: int, unique: int) -> dict[str, Any]:
        wall, processor = (last - first for first, last in zip(self._marks[0], self._marks[-1], strict=True))
        pairs = args.pairs_per_step * (len(self._marks) - 1)
        return {
            "pairs_per_second": pairs / wall,
            "pairs_per_cpu_second": pairs / processor,
            "tokens_computed_per_unique_token": computed / unique,
        }


def our_steps(args: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """Makes an optimizer step each time that it is asked for the next: tokens that it computed, and unique ones among them."""
    import torch

    from orpo_ray.training.model import OrpoModel
    from orpo_ray.training.sharing import share_batch

    model = OrpoModel(student(args)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    for groups in batches(args):
        computed = 0
        for micro_batch in share_batch(groups, ranks=1, token_budget=args.token_budget)[0].micro_batches:
            batch = model.batch(micro_batch, real_rows=len(groups))
            loss, *_ = model(batch)
            loss.backward()
            computed += batch.computed_tokens
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield computed, sum(group.unique_tokens for group in groups)


def run_ours(args: argparse.Namespace) -> dict[str, Any]:
    clock = Clock()
    computed = unique = 0
    for step_computed, step_unique in our_steps(args):
        computed += step_computed
        unique += step_unique
        clock.mark()
    return clock.results(args, computed, unique)


def profile_ours(args: argparse.Namespace) -> str:
    """The operators of a step, by their own share of its time, behind a step for warming up."""
    import torch

    steps = our_steps(args)
    next(steps)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiler:
        next(steps)
    tables: list[str] = [
        profiler.key_averages(group_by_input_shape=shapes).table(sort_by="self_cpu_time_total", row_limit=rows)
        for shapes, rows in ((False, 15), (True, 25))
    ]
    return "\n".join(tables)


def run_trl(args: argparse.Namespace) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    groups = [group for step in batches(args) for group in step]

    def text(tokens: tuple[int, ...]) -> str:
        return "".join(f" w{token}" for token in tokens)

    rows = [
        {"prompt": text(group.prompt), "chosen": text(group.chosen[c][:-1]), "rejected": text(group.rejected[r][:-1])}
        for group in groups
        for c, r in group.pairs
    ]
    clock = Clock()

    class Marks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.mark()

    config = ORPOConfig(
        output_dir="trl", max_steps=args.steps + 1, per_device_train_batch_size=args.batch,
        gradient_accumulation_steps=args.pairs_per_step // args.batch, learning_rate=1e-5, max_length=2048, beta=1.0,
        gradient_checkpointing=False, bf16=False, use_cpu=True, save_strategy="no", report_to="none",
        remove_unused_columns=False, disable_tqdm=True, optim="adamw_torch",
    )  # fmt: skip
    model = student(args)
    computed = 0

    def count(_: Any, positional: Any, named: Any) -> None:
        nonlocal computed
        computed += (positional[0] if positional else named["input_ids"]).numel()

    model.register_forward_pre_hook(count, with_kwargs=True)
    trainer = ORPOTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=word_tokenizer(args),
        callbacks=[Marks()],
    )  # fmt: skip
    first = groups[0]
    assert trainer.train_dataset[0]["chosen_input_ids"] == [*first.prompt, *first.chosen[0]], "other tokens than drawn"
    trainer.train()
    return clock.results(args, computed, sum(group.unique_tokens for group in groups))


def word_tokenizer(args: argparse.Namespace) -> Any:
    """One word a token, so that a text has exactly as many tokens as was drawn for it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{token}": token for token in range(2, MODELS[args.model][1]["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": EOS, **words}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def table(facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{facts['model']}, {facts['lengths']} lengths, {facts['precision']}, {facts['threads']} threads",
        f"{'pairs a':>8} {'pairs/s':>15} {'pairs/CPU-s':>15} {'speed-up':>13} {'peak memory, GB':>17} {'tokens/unique':>15}",
        f"{'prompt':>8} {'TRL   ours':>15} {'TRL   ours':>15} {'wall    CPU':>13} {'TRL   ours':>17} {'TRL   ours':>15}",
    ]
    for row in rows:
        trl, ours = row["trl"], row["ours"]
        wall, processor = (ours[key] / trl[key] for key in ("pairs_per_second", "pairs_per_cpu_second"))
        lines.append(
            f"{row['pairs_per_prompt']:>8} "
            f"{trl['pairs_per_second']:>8.2f} {ours['pairs_per_second']:>6.2f} "
            f"{trl['pairs_per_cpu_second']:>8.2f} {ours['pairs_per_cpu_second']:>6.2f} "
            f"{wall:>6.1f} {processor:>6.1f} "
            f"{trl['peak_memory_gb']:>10.1f} {ours['peak_memory_gb']:>6.1f} "
            f"{trl['tokens_computed_per_unique_token']:>8.2f} {ours['tokens_computed_per_unique_token']:>6.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
