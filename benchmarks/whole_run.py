"""Wall clock of a whole run against a hand-written script that does the same work: benchmarks/by_hand.py.

    python -m benchmarks.whole_run --json whole_run.json          # some eight minutes a round
    python -m benchmarks.whole_run --epochs 1 --prompts 64 --test 32

Both distil the demo's teacher into its student, φ 0.5, refreshed every epoch at staleness 0, from nothing: teacher traces,
the initial student's, live ones of every epoch, training, an evaluation of the teacher and of every student. Each is one
command, from its start to its exit. Sides take turns; medians are given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.outcome import keep, machine, show
from benchmarks.own_process import ROOT

BAR = 0.6
MODELS = ROOT / "orpo_ray" / "demo" / "models"


def main() -> None:
    args = arguments()
    runs: dict[str, list[dict[str, Any]]] = {"script": [], "run": []}
    for number in range(args.rounds):
        # Every other round the other way round.
        for side in sorted(runs, reverse=number % 2 == 0):
            with tempfile.TemporaryDirectory() as name:
                runs[side].append({"script": by_hand, "run": by_orpo_ray}[side](written(args, Path(name)), Path(name)))
            print(json.dumps({"side": side, **runs[side][-1]}), file=sys.stderr, flush=True)
    result = summary(runs)
    facts = {"epochs": args.epochs, "prompts": args.prompts, "test": args.test, "rounds": args.rounds, **machine()}
    keep({"settings": facts, **result, "bar": BAR, "runs": runs}, args.json)
    for side, title in (("run", "orpo-ray run"), ("script", "the script")):
        show(
            f"{title}: {result['wall_s'][side]:.0f} s, {args.epochs} epochs of {args.prompts} prompts, {os.cpu_count()} cores",
            ("part", "seconds"),
            list(result["parts_s"][side].items()),
        )
    show(
        "Test accuracy",
        ("model", *runs["run"][0]["accuracy"]),
        [(side, *(f"{100 * share:.1f} %" for share in found[0]["accuracy"].values())) for side, found in runs.items()],
        [f"run by script: {result['ratio']}; bar ≤ {BAR}"],
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5, help="the paper's")
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--test", type=int, default=500, help="test questions")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the results")
    return parser.parse_args()


def written(args: argparse.Namespace, directory: Path) -> Path:
    """The configuration of both, in a file: the demo's, with other sizes."""
    config = yaml.safe_load((ROOT / "orpo_ray" / "demo" / "demo.yaml").read_text())
    config["task"] |= {"train_size": args.prompts, "test_size": args.test}
    config["teacher"]["model"], config["student"]["model"] = str(MODELS / "teacher"), str(MODELS / "student")
    config["train"]["epochs"] = args.epochs
    config["storage"] = {"path": str(directory / "runs")}
    file = directory / "run.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def by_orpo_ray(config: Path, directory: Path) -> dict[str, Any]:
    """`orpo-ray run`, and what its report says."""
    began = time.monotonic()
    subprocess.run([*ORPO_RAY, "run", str(config)], check=True, cwd=ROOT, stdout=sys.stderr)
    wall = time.monotonic() - began
    shown = subprocess.run(
        [*ORPO_RAY, "show", str(directory / "runs" / "demo"), "--json"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    report = json.loads(shown.stdout)
    parts = {phase["name"]: phase["seconds"] for phase in report["phases"]}
    return {
        "wall_s": round(wall, 1),
        "parts_s": parts | {"start and end of Ray": round(wall - sum(parts.values()), 1)},
        "accuracy": accuracy_of(report),
    }


def accuracy_of(report: dict[str, Any]) -> dict[str, float]:
    found = {"teacher": report["teacher"]} | {f"epoch {item['epoch']}": item for item in report["evaluations"]}
    return {name: item["correct"] / item["total"] for name, item in found.items()}


def by_hand(config: Path, directory: Path) -> dict[str, Any]:
    began = time.monotonic()
    out = directory / "by_hand.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.by_hand", str(config), "--json", str(out)], check=True, cwd=ROOT,
        stdout=sys.stderr,
    )  # fmt: skip
    wall = time.monotonic() - began
    result = json.loads(out.read_text())
    parts = result["seconds"]
    rest = round(wall - sum(parts.values()), 1)
    return {"wall_s": round(wall, 1), "parts_s": parts | {"the rest": rest}, "accuracy": result["accuracy"]}


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of the rounds; the ratio is that of run by script in each round."""
    ratios = [ours["wall_s"] / theirs["wall_s"] for ours, theirs in zip(runs["run"], runs["script"], strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "wall_s": {side: statistics.median(run["wall_s"] for run in found) for side, found in runs.items()},
        "parts_s": {
            side: {part: round(statistics.median(run["parts_s"][part] for run in found), 1) for part in found[0]["parts_s"]}
            for side, found in runs.items()
        },
    }  # fmt: skip


# As the command `orpo-ray`, whether or not the package is installed.
ORPO_RAY = (sys.executable, "-m", "orpo_ray.cli")

if __name__ == "__main__":
    main()
