"""Seconds from an optimizer step to the first token from its weights, by model size and transport.

    python -m benchmarks.weight_sync --json weight_sync.json      # some five minutes
    python -m benchmarks.weight_sync --sizes 1m --rounds 1

What a run does behind a step that publishes is done here: gather, probe, write or copy to memory, tell the board; the
sampler, which waits at the board, loads the version with vLLM, checks it by the probe, and samples one token. Weights are
random, of a Llama. One rank trains; the step itself is not in the time. Without a GPU, `nccl` is gloo between two CPU processes.

Beside it, in turn: the time to copy the same bytes in the same place (the limit), and the time until an engine that is
started anew on the same directory gives its first token, its libraries already imported.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.outcome import keep, machine, show

if TYPE_CHECKING:
    from orpo_ray.weights.transport import Name

SIZES: dict[str, dict[str, int]] = {
    "1m": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
           "num_key_value_heads": 4, "vocab_size": 1_000},
    "20m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6,
            "num_key_value_heads": 6, "vocab_size": 16_000},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49_152},
}  # fmt: skip
"""Llamas with a tied output layer; the last is SmolLM2-135M's shape."""
TRANSPORTS: tuple[Name, ...] = ("filesystem", "shm", "nccl")
PARTS = ("gather", "write and probe", "tell", "load", "check", "token")
FACTOR, EXTRA_S = 1.5, 0.05
LIMIT_S = 300.0
PROMPT, TRACE = list(range(3, 77)), list(range(3, 67))


def main() -> None:
    args = arguments()
    import ray

    from tests.tiny.cluster import start_ray

    start_ray()
    with tempfile.TemporaryDirectory() as name:
        rows = [row for size in args.sizes for row in rows_of(size, args, Path(name) / size)]
    ray.shutdown()
    facts = {"dtype": args.dtype, "rounds": args.rounds, "threads": args.threads, **machine()}
    keep({"settings": facts, "bar": {"factor": FACTOR, "extra_s": EXTRA_S}, "rows": rows}, args.json)
    show(
        f"Seconds from an optimizer step to the first token from its weights, {args.dtype}, medians of {args.rounds}, "
        f"{os.cpu_count()} cores (bar: {FACTOR} × the copy + {EXTRA_S} s)",
        ("model", "MB", "transport", "seconds", "the copy", "bar", "by the bar", "a new engine"),
        [
            (r["size"], r["mb"], r["transport"], r["seconds"], r["copy_s"], r["bar_s"], r["by_bar"], r["restart_s"])
            for r in rows
        ],
    )
    show(
        "Where they go, seconds",
        ("model", "transport", *PARTS),
        [(row["size"], row["transport"], *(row["parts_s"][part] for part in PARTS)) for row in rows],
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5, help="syncs of each transport, in turn; medians are given")
    parser.add_argument("--threads", type=int, default=1, help="of the engine, and of the trainer")
    parser.add_argument("--json", type=Path, help="where to write the results")
    return parser.parse_args()


def rows_of(size: str, args: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """One row a transport: both publish to the same engine, in turn."""
    import ray
    import torch

    from benchmarks.first_token import FirstToken
    from orpo_ray.config import Geometry
    from orpo_ray.config.models import EngineConfig
    from orpo_ray.weights import StalenessGate, Version
    from orpo_ray.weights.board import AttemptStart, WeightBoard
    from orpo_ray.weights.transport import transport_of

    torch.set_num_threads(args.threads)
    initial = make_llama(directory / "initial", size, args.dtype)
    # A version after every step, of one row: row N is sampled with version N.
    syncs = 1 + args.rounds * len(TRANSPORTS)
    geometry = Geometry(1, 1, 1, prompts=syncs + 1, epochs=1, refresh_steps=1)
    first = Version(0, str(initial), step=0, epoch=0)
    board: Any = ray.remote(num_cpus=0)(WeightBoard).remote(first, StalenessGate(geometry, 0))
    ray.get(board.start_attempt.remote(AttemptStart(1, 0, None), first, []))
    engine = EngineConfig(dtype=args.dtype, max_model_len=256, max_num_seqs=8, kv_cache_mib=64, prefill_tokens=256)
    sampler: Any = ray.remote(num_cpus=0)(FirstToken).remote(str(initial), engine, args.threads, PROMPT)
    ray.get(sampler.start.remote())
    trainer = Trainer(initial, args.dtype, board, directory / "weights")
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in TRANSPORTS}
    copies: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
    for number in range(1, syncs + 1):
        name = TRANSPORTS[number % len(TRANSPORTS)]
        with transport_of(name, directory / "weights", "127.0.0.1", LIMIT_S) as transport:
            trainer.optimizer_step()
            sampled = sampler.after.remote(board, number)
            version, marks = trainer.publish(number, transport)
            parts = parts_of(marks | ray.get(sampled))
            place = Path("/dev/shm") if name == "shm" else directory
            seconds = copy_seconds(Path(version.path) / "model.safetensors", place)
        if number > 1:  # the first loads what vLLM needs to load anything
            measured[name].append(parts)
            copies[name].append(seconds)
    restarts = [ray.get(sampler.restart.remote(version.path)) for _ in range(2)]
    ray.kill(sampler)
    ray.kill(board)
    nbytes = (Path(version.path) / "model.safetensors").stat().st_size
    return [row_of(size, name, nbytes, measured[name], copies[name], restarts) for name in TRANSPORTS]


def make_llama(directory: Path, size: str, dtype: str) -> Path:
    """A model directory with random weights, and the tests' tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny.models import make_model

    make_model(directory, "llama")
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES[size], tie_word_embeddings=True, max_position_embeddings=2048)
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(directory)
    return directory


class Trainer:
    """Rank 0 of one, as `training/worker.py` publishes; no DeepSpeed is round its model."""

    def __init__(self, initial: Path, dtype: str, board: Any, weights: Path) -> None:
        import torch

        from orpo_ray.training.model import OrpoModel, load_student

        self._initial, self._dtype, self._board, self._weights = initial, dtype, board, weights
        self.module = OrpoModel(load_student(initial).to(getattr(torch, dtype)))
        self.device = torch.device("cpu")
        self.eval, self.train = self.module.eval, self.module.train
        self._optimizer = torch.optim.SGD(self.module.parameters(), lr=1e-3)

    def __call__(self, *batch: Any) -> Any:
        return self.module(*batch)

    def optimizer_step(self) -> None:
        import torch

        for parameter in self.module.parameters():
            parameter.grad = torch.randn_like(parameter)
        self._optimizer.step()

    def publish(self, number: int, transport: Any) -> tuple[Any, dict[str, float]]:
        """Publish version `number`; it, and times of day."""
        import ray

        from orpo_ray.training.publish import gather_student, probe_fact, write_probed
        from orpo_ray.weights import Version
        from orpo_ray.weights.probe import FACT
        from orpo_ray.weights.published import remove_versions, version_directory

        marks = {"step": time.time()}
        precision = {"float32": "fp32", "bfloat16": "bf16"}[self._dtype]
        published = gather_student(self.module.student, partitioned=False, rank=0, precision=precision)
        marks["gathered"] = time.time()
        path = version_directory(self._weights, number, 1)
        version = Version(number, str(path), step=number)
        facts: dict[str, Any] = {"number": number}

        def probe() -> dict[str, Any]:
            return probe_fact(self, PROMPT, TRACE, self._dtype)

        def write(directory: Path) -> None:
            facts[FACT] = write_probed(published, directory, self._initial, probe)

        copy = transport.publish(path, write, facts, published.nbytes)
        marks["written"] = time.time()
        version = replace(version, copy=copy)
        removable = ray.get(self._board.publish.remote(1, version))
        transport.settle()
        remove_versions(path for path in removable if path != str(self._initial))
        return version, marks


def parts_of(marks: dict[str, float]) -> dict[str, float]:
    """Seconds of each part, from the times of day at which the parts ended."""
    ends = ("step", "gathered", "written", "told", "loaded", "checked", "first_token")
    return {part: marks[end] - marks[start] for part, (start, end) in zip(PARTS, pairwise(ends), strict=True)}


def copy_seconds(file: Path, place: Path, copy: Callable[[Path, Path], Any] = shutil.copyfile) -> float:
    """Seconds to copy a file into `place`."""
    target = place / f"orpo_ray-benchmark-{os.getpid()}"
    began = time.monotonic()
    copy(file, target)
    seconds = time.monotonic() - began
    target.unlink()
    return seconds


def row_of(
    size: str, transport: str, nbytes: int, syncs: list[dict[str, float]], copies: list[float], restarts: list[float]
) -> dict[str, Any]:
    """Medians; `by_bar` above 1 misses it."""
    seconds = statistics.median(sum(parts.values()) for parts in syncs)
    copy = statistics.median(copies)
    bar = FACTOR * copy + EXTRA_S
    return {
        "size": size,
        "transport": transport,
        "mb": round(nbytes / 1e6, 1),
        "seconds": round(seconds, 4),
        "copy_s": round(copy, 4),
        "bar_s": round(bar, 4),
        "by_bar": round(seconds / bar, 2),
        "restart_s": round(statistics.median(restarts), 2),
        "parts_s": {part: round(statistics.median(parts[part] for parts in syncs), 4) for part in PARTS},
    }


if __name__ == "__main__":
    main()
