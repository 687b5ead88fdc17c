"""How evenly ranks are loaded: the core's sharing by tokens against each rank keeping the rows that it is sent.

    python benchmarks/rank_balance.py --out rank_balance.json

Ranks wait for the slowest one in every micro-step. Here each rank's micro-batches are computed one after another in one
process, forward and backward, so that no rank disturbs another's time, and laid side by side afterwards. Weights and
tokens are random; lengths, and how many pairs a prompt has, are drawn as a stream of verified traces has them: groups
differ several times in size. Both sides compute the same groups.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orpo_ray.training.batching import TokenGroup
    from orpo_ray.training.model import OrpoModel

EOS, VOCABULARY = 1, 8192
LENGTHS = {"gsm8k": ((74, 25), (131, 45), (94, 40)), "medqa": ((210, 60), (190, 60), (180, 60))}
"""Mean and spread, in tokens, of prompts, chosen and rejected traces."""

Ranks = list[list[list["TokenGroup"]]]
"""For each rank, its micro-batches."""


def main() -> None:
    args = arguments()
    model = student(args)
    rows: list[dict[str, Any]] = []
    for ranks in args.ranks:
        for lengths in args.lengths:
            batch_of = random.Random(0)
            found: dict[str, list[tuple[float, float]]] = {"kept": [], "shared": []}
            for _ in range(args.steps):
                groups = draw(batch_of, lengths, args.rows)
                for side, given in (("kept", kept), ("shared", shared)):
                    found[side].append(
                        balances(model, given(groups, ranks, args.token_budget), len(groups), args.repeats)
                    )
            rows.append(
                {"ranks": ranks, "lengths": lengths}
                | {
                    side: {
                        "tokens": statistics.median(tokens for tokens, _ in steps),
                        "seconds": statistics.median(seconds for _, seconds in steps),
                    }
                    for side, steps in found.items()
                }
            )
    facts = {key: getattr(args, key) for key in ("rows", "steps", "repeats", "token_budget", "threads", "layers")}
    if args.out:
        Path(args.out).write_text(
            json.dumps({"settings": facts | {"cores": os.cpu_count()}, "rows": rows}, indent=2) + "\n"
        )
    print(table(facts, rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--lengths", choices=LENGTHS, nargs="+", default=list(LENGTHS))
    parser.add_argument("--rows", type=int, default=32, help="groups of a global batch")
    parser.add_argument("--steps", type=int, default=2, help="global batches")
    parser.add_argument(
        "--repeats", type=int, default=3, help="times that each micro-batch is computed; the median counts"
    )
    parser.add_argument("--token-budget", type=int, default=8192, help="most tokens of a micro-batch")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="where to write the results as JSON")
    return parser.parse_args()


def student(args: argparse.Namespace) -> OrpoModel:
    """A Llama of random weights, some million parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from orpo_ray.training.model import OrpoModel

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=args.layers,
        num_attention_heads=4, max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=EOS,
    )  # fmt: skip
    return OrpoModel(LlamaForCausalLM(config)).train()


def draw(generator: random.Random, lengths: str, rows: int) -> list[TokenGroup]:
    """A global batch, in the order of the stream: from one to eight pairs a prompt, as many as it happens to have."""
    from orpo_ray.training.batching import TokenGroup

    def tokens(mean: int, spread: int) -> tuple[int, ...]:
        length = max(8, round(generator.gauss(mean, spread)))
        return (*(generator.randrange(2, VOCABULARY) for _ in range(length - 1)), EOS)

    prompt, chosen, rejected = LENGTHS[lengths]
    groups = []
    for _ in range(rows):
        pairs = generator.randint(1, 8)
        groups.append(
            TokenGroup(
                tokens(*prompt)[:-1],
                tuple(tokens(*chosen) for _ in range(pairs)),
                tuple(tokens(*rejected) for _ in range(pairs)),
                tuple((i, i) for i in range(pairs)),
            )
        )
    return groups


def shared(groups: Sequence[TokenGroup], ranks: int, token_budget: int) -> Ranks:
    from orpo_ray.training.sharing import share_batch

    return [share.micro_batches for share in share_batch(groups, ranks, token_budget)]


def kept(groups: Sequence[TokenGroup], ranks: int, token_budget: int) -> Ranks:
    """Each rank keeps the rows that it is sent, and fills one micro-batch after another in their order."""
    given: Ranks = []
    for rank in range(ranks):
        micro_batches: list[list[TokenGroup]] = [[]]
        for group in groups[rank::ranks]:
            if sum(held.unique_tokens for held in micro_batches[-1]) + group.unique_tokens > token_budget:
                micro_batches.append([])
            micro_batches[-1].append(group)
        given.append(micro_batches)
    return given


def balances(model: OrpoModel, given: Ranks, real_rows: int, repeats: int) -> tuple[float, float]:
    """Fullest over mean rank in tokens, and slowest over mean rank in seconds, each summed over micro-steps."""
    tokens = [[sum(group.unique_tokens for group in held) for held in micro_batches] for micro_batches in given]
    seconds = [[time_of(model, held, real_rows, repeats) for held in micro_batches] for micro_batches in given]
    return spread(tokens), spread(seconds)


def spread(loads_RM: Sequence[Sequence[float]]) -> float:
    """Greatest over mean load of each micro-step, weighed by its load; 1 is even. A rank without work waits."""
    side_by_side = list(zip_longest(*loads_RM, fillvalue=0.0))
    return sum(map(max, side_by_side)) * len(loads_RM) / sum(map(sum, side_by_side))


def time_of(model: OrpoModel, groups: Sequence[TokenGroup], real_rows: int, repeats: int) -> float:
    """Seconds of the processor, which other work on the machine does not lengthen."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        loss, *_ = model(model.batch(groups, real_rows))
        loss.backward()
        taken.append(time.process_time() - began)
        model.zero_grad()
    return statistics.median(taken)


def table(facts: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"{facts['rows']} rows a global batch, micro-batches of {facts['token_budget']} tokens; slowest over mean rank, 1 is even",
        f"{'':>6} {'':<8} {'tokens':>16} {'seconds':>16} {'':>8}",
        f"{'ranks':>6} {'lengths':<8} {'kept  shared':>16} {'kept  shared':>16} {'faster':>8}",
    ]
    lines += [
        f"{row['ranks']:>6} {row['lengths']:<8} "
        f"{row['kept']['tokens']:>9.3f} {row['shared']['tokens']:>6.3f} "
        f"{row['kept']['seconds']:>9.3f} {row['shared']['seconds']:>6.3f} "
        f"{row['kept']['seconds'] / row['shared']['seconds']:>7.2f}x"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
