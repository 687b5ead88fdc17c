"""The diversity filter against the same filter on rouge-score: K traces of each of many prompts, thinned at ROUGE-L 0.80.

    python benchmarks/diversity.py --out benchmarks/diversity.json
    python benchmarks/diversity.py --oracle-prompts 10000        # rouge-score on all of them: some ten minutes

Traces are made up: a prompt's share a skeleton, of which each keeps between a half and all, so that overlaps lie on both
sides of the threshold. Both sides see the same texts in the same process, one after the other. rouge-score takes its time, so
by default it thins the first `--oracle-prompts` only, and its time is scaled up; every score that both computed is compared.

The share of sampling is what the filter would add to the time that engines of several speeds take to sample these traces.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rouge_score.rouge_scorer import RougeScorer

from orpo_ray.traces.diversity import rouge_l, select_diverse

THRESHOLD = 0.8
BAR = 50.0
LARGEST_DIFFERENCE = 1e-12
ENGINES = {"SmolLM2-135M on 2 cores": 390.0, "the demo's student on 2 cores": 8_000.0, "a GPU": 20_000.0}
"""Tokens per second; the first two measured on the same kind of machine, the third an order of magnitude."""


def main() -> None:
    args = arguments()
    prompts = made_up(args.prompts, args.k, args.words, args.seed)
    few = prompts[: args.oracle_prompts]
    ours_s, ours = timed(lambda texts: select_diverse(texts, THRESHOLD), prompts)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)

    def score(a: str, b: str) -> float:
        return float(scorer.score(a, b)["rougeL"].fmeasure)

    oracle_s, oracle = timed(lambda texts: thinned(texts, score), few)
    oracle_s *= len(prompts) / len(few)
    # Once more, outside the clock, and over all pairs, not only those that the filter happens to compare.
    differences = [
        abs(score(a, b) - rouge_l(a, b)) for texts in few[: args.compared] for a, b in combinations(texts, 2)
    ]
    tokens = sum(len(text.split()) for texts in prompts for text in texts)
    result = {
        "prompts": len(prompts),
        "k": args.k,
        "words_a_trace": round(tokens / (len(prompts) * args.k), 1),
        "kept": sum(map(len, ours)),
        "ours_s": round(ours_s, 3),
        "rouge_score_s": round(oracle_s, 1),
        "rouge_score_prompts": len(few),
        "ratio": round(oracle_s / ours_s, 1),
        "bar": BAR,
        "largest_difference": max(differences),
        "pairs_compared": len(differences),
        "same_traces_kept": ours[: len(few)] == oracle,
        "share_of_sampling": {name: ours_s / (tokens / speed) for name, speed in ENGINES.items()},
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    failed = [
        name
        for name, good in {
            f"ratio below {BAR:g}": result["ratio"] >= BAR,
            f"scores differ by more than {LARGEST_DIFFERENCE:g}": result["largest_difference"] <= LARGEST_DIFFERENCE,
            "other traces were kept": result["same_traces_kept"],
        }.items()
        if not good
    ]
    if failed:
        sys.exit("; ".join(failed))


def made_up(prompts: int, k: int, words: int, seed: int) -> list[list[str]]:
    """`k` texts of about `words` words for each prompt."""
    rng = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(2000)]
    found = []
    for _ in range(prompts):
        skeleton = rng.choices(vocabulary, k=max(8, int(rng.gauss(words, words / 3))))
        texts = []
        for _ in range(k):
            kept = rng.uniform(0.5, 1.0)
            texts.append(" ".join(word if rng.random() < kept else rng.choice(vocabulary) for word in skeleton))
        found.append(texts)
    return found


def thinned(texts: Sequence[str], score: Callable[[str, str], float]) -> list[int]:
    """The same rule as `select_diverse`, on another score: first come, first kept."""
    kept: list[int] = []
    for place, text in enumerate(texts):
        # A score that only meets the threshold is not above it; rouge-score rounds it up by one unit in the last place.
        if all(score(texts[other], text) <= THRESHOLD + LARGEST_DIFFERENCE for other in kept):
            kept.append(place)
    return kept


def timed(thin: Callable[[list[str]], list[int]], prompts: Sequence[list[str]]) -> tuple[float, list[list[int]]]:
    """Seconds of this process, and the places kept of each prompt."""
    began = time.process_time()
    kept = [thin(texts) for texts in prompts]
    return time.process_time() - began, kept


def arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=8, help="traces a prompt")
    parser.add_argument(
        "--words", type=int, default=100, help="mean words of a trace; GSM8K's solutions have about 100"
    )
    parser.add_argument("--oracle-prompts", type=int, default=300, help="prompts that rouge-score thins")
    parser.add_argument(
        "--compared", type=int, default=100, help="prompts of which every pair's two scores are compared"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="write the result to this JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
