"""How far sampling and training overlap: engines and trainers that sleep, in the run's own gated stream.

    python -m benchmarks.overlap --json overlap.json      # some seven minutes
    python -m benchmarks.overlap --steps 4 --seconds 0.4 --rounds 1

Nothing is computed, so that the cores are not what they wait for: a fake engine sleeps for each block, a fake trainer for
each optimizer step, and publishes a version after it. Real are the sampler round the engine, the gate, the board, the
journal, Ray Data's execution and Train's split. Each round runs every setting once.

The wall clock goes from the first block's sampling to the end of the last step. It is compared with the longer of the two
sums of sleep, sampling and training, which no overlap can beat; a batch that nothing can overlap with, the first, is in
it. Parallelism is the sum of the engines' sleep by the wall clock, with trainers that do not sleep.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.outcome import keep, machine, show

RANKS = 2
BALANCES = ("1:1", "1:0.5", "0.5:1")
BARS = {"wall": 1.1, "parallelism": 1.9}


@dataclass(frozen=True)
class Setting:
    """Sleep of a step, seconds: all its blocks' on one engine, and the trainer's."""

    max_staleness: int
    samplers: int
    sampling: float
    training: float

    @property
    def sampling_wall(self) -> float:
        """Seconds of a step's sampling with all engines at work."""
        return self.sampling / self.samplers


def main() -> None:
    args = arguments()
    from tests.tiny.cluster import start_ray

    start_ray()
    overlap = [
        Setting(staleness, 1, *(args.seconds * float(share) for share in balance.split(":")))
        for balance in args.balances
        for staleness in args.staleness
    ]
    parallel = [Setting(1, samplers, args.seconds, 0.0) for samplers in args.samplers]
    walls: dict[Setting, list[float]] = {setting: [] for setting in (*overlap, *parallel)}
    for _ in range(args.rounds):
        for setting, times in walls.items():
            times.append(wall_clock(setting, args))
    rows = [row_of(setting, statistics.median(times), args.steps) for setting, times in walls.items()]
    names = ("steps", "seconds", "rounds", "global_batch", "block_rows")
    facts = {name: getattr(args, name) for name in names} | machine()
    keep({"settings": facts, "bars": BARS, "rows": rows}, args.json)
    print_tables(rows[: len(overlap)], rows[len(overlap) :], args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=32, help="optimizer steps of a setting")
    parser.add_argument("--seconds", type=float, default=1.0, help="sleep of a step, where it is the longer of the two")
    parser.add_argument("--rounds", type=int, default=1, help="medians are given")
    parser.add_argument("--global-batch", type=int, default=32, help="prompts")
    parser.add_argument("--block-rows", type=int, default=16, help="the default of a run with this batch and two ranks")
    parser.add_argument("--balances", nargs="*", default=BALANCES, help="sampling:training, in shares of --seconds")
    parser.add_argument("--staleness", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--samplers", nargs="*", type=int, default=[1, 2], help="beside each other, for parallelism")
    parser.add_argument("--json", type=Path, help="where to write the results")
    return parser.parse_args()


def wall_clock(setting: Setting, args: argparse.Namespace) -> float:
    """Seconds from the first block's sampling to the end of the last step."""
    from benchmarks.gated_stream import bare_version, read_stream
    from benchmarks.sleeping import SleepingSampler
    from tests.tiny.fake_engine import FakeEngineSpec, read_calls, write_sums
    from tests.tiny.runs import tiny_config

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = tiny_config(
            directory,
            directory / "student",
            policy={"phi": 1.0, "refresh": 1, "max_staleness": setting.max_staleness},
            train={"global_batch": args.global_batch, "workers": RANKS, "epochs": 1},
            resources={"block_rows": args.block_rows, "samplers": setting.samplers},
        )
        prompts = args.steps * args.global_batch
        write_sums(directory / "pairs", prompts)
        spec = FakeEngineSpec.below(
            directory, config, seconds=setting.sampling / (args.global_batch // args.block_rows)
        )
        read_stream(
            spec,
            config.geometry(prompts),
            SleepingSampler,
            lambda rank, step, batch: time.sleep(setting.training),
            lambda number, step: bare_version(directory, number, step),
        )
        end = time.time()
        calls = read_calls(spec.calls)
        assert sum(len(call["asked"]) for call in calls) == prompts, "every prompt is sampled once"
        return end - min(call["at"] for call in calls)


def row_of(setting: Setting, wall: float, steps: int) -> dict[str, Any]:
    bound = steps * max(setting.sampling_wall, setting.training)
    return {
        **asdict(setting),
        "wall_s": round(wall, 2),
        "bound_s": round(bound, 2),
        "ratio": round(wall / bound, 3),
        "parallelism": round(steps * setting.sampling / wall, 3),
    }


def print_tables(overlap: list[dict[str, Any]], parallel: list[dict[str, Any]], args: argparse.Namespace) -> None:
    show(
        f"{args.steps} steps of {args.global_batch} prompts in blocks of {args.block_rows}, fake engines and trainers that "
        f"sleep, {os.cpu_count()} cores (bar: ≤ {BARS['wall']} at staleness 1)",
        ("sampling and training, s a step", "staleness", "wall clock, s", "the longer of the two, s", "ratio"),
        [
            (f"{row['sampling']:g} and {row['training']:g}", row["max_staleness"], row["wall_s"], row["bound_s"], row["ratio"])
            for row in overlap
        ],
    )  # fmt: skip
    show(
        f"Samplers beside each other, trainers that take no time (bar: parallelism of 2 ≥ {BARS['parallelism']})",
        ("samplers", "wall clock, s", "parallelism"),
        [(row["samplers"], row["wall_s"], row["parallelism"]) for row in parallel],
    )


if __name__ == "__main__":
    main()
