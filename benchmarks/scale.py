"""What the stream costs at a million prompts: a simulation of its scale, with samplers that only ask the gate.

    python -m benchmarks.scale --json scale.json          # some six minutes
    python -m benchmarks.scale --few 2048 --many 8192 --rounds 1

Real are the gate, the board, Ray Data's execution and Train's split; the sampler gives out ready-made groups of GSM8K's
lengths, and the ranks only read. Few prompts and many are run in turn, each in a process and a Ray of its own. The first
round reads every row of both; the others as many steps as the few prompts have, for the time to the first batch and for
memory after equal work. Memory is what a process has for itself (USS). The gate lives in the board's process.

Beside it, on one core and without Ray: the plan and the gate alone. And the stream once more with samplers that do all
their own work (plan, matching, groups, verdicts, Arrow, journal) on an engine that answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.outcome import keep, machine, show
from benchmarks.own_process import result_of

BARS = {"memory": 1.1, "groups_per_s": 5_000, "plan_and_gate_rows_per_s": 50_000}
PROCESSES = {"driver": None, "split coordinator": "ray::SplitCoordinator", "board and gate": "ray::WeightBoard"}


def main() -> None:
    args = arguments()
    if args.side:
        args.json.write_text(json.dumps(side(args)))
        return
    rows_per_s = plan_and_gate(args)
    runs: dict[int, list[dict[str, Any]]] = {args.few: [], args.many: []}
    for number in range(args.rounds):
        # Every other round the other way round.
        for prompts in sorted(runs, reverse=number % 2 == 1):
            runs[prompts].append(in_own_process(args, "gate-only", prompts, whole=number == 0))
    working = in_own_process(args, "working", min(args.many, args.working), whole=True)
    result = summary(runs, args)
    result |= {"plan_and_gate_rows_per_s": rows_per_s, "working_groups_per_s": working["groups_per_s"]}
    keep({"settings": {**settings(args), **machine()}, "result": result, "runs": runs, "working": working}, args.json)
    print_tables(result, args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=10_000, help="prompts")
    parser.add_argument("--many", type=int, default=1_000_000, help="prompts")
    parser.add_argument("--working", type=int, default=100_000, help="prompts for samplers that do all their own work")
    parser.add_argument("--rounds", type=int, default=3, help="of few and many in turn; medians are given")
    parser.add_argument("--global-batch", type=int, default=512)
    parser.add_argument("--block-rows", type=int, default=256)
    parser.add_argument("--refresh", type=int, default=4, help="optimizer steps between two versions")
    parser.add_argument("--max-staleness", type=int, default=1)
    parser.add_argument("--samplers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--side", choices=("gate-only", "working"), help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--most-steps", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def settings(args: argparse.Namespace) -> dict[str, Any]:
    names = ("few", "many", "working", "rounds", "global_batch", "block_rows", "refresh", "max_staleness", "samplers")
    return {name: getattr(args, name) for name in names}


def plan_and_gate(args: argparse.Namespace, rows: int = 100_000) -> float:
    """Rows a second of this process's time that are planned, and asked for at the gate block by block."""
    from orpo_ray.config import Geometry
    from orpo_ray.pairs import Plan
    from orpo_ray.weights import StalenessGate

    geometry = Geometry(args.global_batch, 2, args.block_rows, prompts=args.many, epochs=1, refresh_steps=args.refresh)
    plan, gate = Plan(0, (0.5,), geometry, str), StalenessGate(geometry, args.max_staleness)
    rows = min(rows, geometry.rows)
    began = time.process_time()
    for first in range(0, rows, args.block_rows):
        gate.admits(first + args.block_rows - 1, 0)
        for index in range(first, first + args.block_rows):
            plan.row(index)
    return rows / (time.process_time() - began)


def in_own_process(args: argparse.Namespace, kind: str, prompts: int, *, whole: bool) -> dict[str, Any]:
    most = None if whole else -(-args.few // args.global_batch)
    return result_of("benchmarks.scale", "--side", kind, prompts=prompts, most_steps=most, **settings(args))


def side(args: argparse.Namespace) -> dict[str, Any]:
    """One stream from its first row to its last: seconds to the first batch, groups a second from there, memory."""
    import ray

    from benchmarks.gated_stream import bare_version, read_stream
    from benchmarks.ready_made import GateOnlySampler, write_ids
    from orpo_ray.sampling.sampler import Sampler
    from tests.tiny.cluster import start_ray
    from tests.tiny.fake_engine import FakeEngineSampler, FakeEngineSpec, write_sums
    from tests.tiny.runs import tiny_config

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = tiny_config(
            directory,
            directory / "student",
            sampling={"k": 4, "rouge_l_max": 0.8},
            policy={"phi": 0.5, "refresh": args.refresh, "max_staleness": args.max_staleness},
            train={"global_batch": args.global_batch, "epochs": 1},
            resources={"block_rows": args.block_rows, "samplers": args.samplers},
        )
        (write_ids if args.side == "gate-only" else write_sums)(directory / "pairs", args.prompts)
        spec = FakeEngineSpec.below(directory, config)
        geometry = config.geometry(args.prompts)
        ends: list[float] = []
        memory: list[dict[str, float]] = []
        at = set(sample_steps(geometry.steps, -(-args.few // args.global_batch)))

        def step(rank: int, done: int, batch: Any) -> None:
            assert batch.num_rows == geometry.local_rows
            if rank == 0:
                ends.append(time.monotonic())
                if done + 1 in at:
                    memory.append(private_mib() | {"step": done + 1})

        start_ray()
        began = time.monotonic()
        sampler: type[Sampler] = GateOnlySampler if args.side == "gate-only" else FakeEngineSampler
        read_stream(
            spec, geometry, sampler, step, lambda number, done: bare_version(directory, number, done), args.most_steps
        )
        ray.shutdown()
    return {
        "prompts": args.prompts,
        "rows": len(ends) * args.global_batch,
        "first_batch_s": round(ends[0] - began, 3),
        "seconds": round(ends[-1] - ends[0], 3),
        "groups_per_s": round((len(ends) - 1) * args.global_batch / (ends[-1] - ends[0]), 1),
        "memory_mib": memory,
    }


def sample_steps(steps: int, equal: int) -> list[int]:
    """Steps at which memory is looked at: where both have done equal work, and twenty times on the way to the end."""
    return sorted({min(equal, steps), *(steps * part // 20 for part in range(1, 21))} - {0})


def private_mib() -> dict[str, float]:
    """MiB that each process has for itself; those of this Ray alone."""
    import psutil

    me = psutil.Process()
    children = me.children(recursive=True)
    found = {}
    for name, title in PROCESSES.items():
        if title is None:
            found[name] = me.memory_full_info().uss / 2**20
            continue
        (process,) = [child for child in children if "".join(child.cmdline()).startswith(title)]
        found[name] = process.memory_full_info().uss / 2**20
    return {name: round(mib, 1) for name, mib in found.items()}


def summary(runs: dict[int, list[dict[str, Any]]], args: argparse.Namespace) -> dict[str, Any]:
    """Medians of the rounds; throughput and peak of memory from the round that read everything."""
    few, many = runs[args.few], runs[args.many]
    equal = -(-args.few // args.global_batch)
    memory = {}
    for name in PROCESSES:
        after = [
            statistics.median(next(m[name] for m in run["memory_mib"] if m["step"] == equal) for run in side)
            for side in (few, many)
        ]
        peak = max(m[name] for m in many[0]["memory_mib"])
        memory[name] = {
            "few_mib": after[0], "many_mib": after[1], "ratio": round(after[1] / after[0], 3),
            "many_peak_mib": peak, "peak_ratio": round(peak / after[0], 3),
        }  # fmt: skip
    return {
        "memory": memory,
        "first_batch_s": [statistics.median(run["first_batch_s"] for run in side) for side in (few, many)],
        "groups_per_s": many[0]["groups_per_s"],
        "bars": BARS,
    }


def print_tables(result: dict[str, Any], args: argparse.Namespace) -> None:
    show(
        f"Memory of a process for itself, MiB (bar: ratio ≤ {BARS['memory']})",
        ("process", f"{args.few:,} prompts", f"{args.many:,}, equal work", "ratio", "its peak to the end", "ratio"),
        [
            (name, m["few_mib"], m["many_mib"], m["ratio"], m["many_peak_mib"], m["peak_ratio"])
            for name, m in result["memory"].items()
        ],
    )
    few, many = result["first_batch_s"]
    show(
        f"Global batch {args.global_batch}, blocks of {args.block_rows} rows, 2 ranks, {args.samplers} samplers, "
        f"{os.cpu_count()} cores",
        ("what", "measured", "bar"),
        [
            (f"seconds to the first batch, {args.few:,} prompts", few, "–"),
            (f"seconds to the first batch, {args.many:,} prompts", many, "the same"),
            ("groups/s through the stream, samplers that only ask the gate", result["groups_per_s"], "≥ 5,000"),
            ("groups/s, samplers that do all their own work", result["working_groups_per_s"], "–"),
            ("rows/s of plan and gate alone, one core", result["plan_and_gate_rows_per_s"], "≥ 50,000"),
        ],
    )


if __name__ == "__main__":
    main()
