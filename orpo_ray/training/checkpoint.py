"""Checkpoints: optimizer, scheduler, RNG and cursor together, committed by one rename (DESIGN promise 4).

checkpoints/step-000120/       appears when every rank has written its part
  deepspeed/…                  ZeRO shards of model and optimizer
  rng-rank-0.pt                random state of each rank
  orpo_ray_version.json        the manifest: cursor, version, sizes of all files
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orpo_ray.training.universal import convert_to_universal
from orpo_ray.weights.published import IncompleteVersionError, check_published, seal_directory

_TAG = "deepspeed"


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint.

    Attributes:
        step: optimizer steps done; the stream's cursor is step × global_batch.
        version: how often the student had been published, and where that version lies.
        world_size: ranks that wrote it.
    """

    path: Path
    step: int
    version: int
    version_path: str
    version_step: int
    world_size: int


def save_checkpoint(
    engine: Any, directory: Path, facts: dict[str, Any], *, rank: int, barrier: Callable[[], None]
) -> None:
    """Write and commit a checkpoint; every rank calls it.

    Args:
        engine: the DeepSpeed engine.
        directory: the final directory, `checkpoints/step-…`.
        facts: the fields of Checkpoint but `path`.
    """
    partial = directory.with_name(directory.name + ".partial")
    if rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    barrier()
    # What is never trained, as the student below its adapters, is read from the initial student again.
    engine.save_checkpoint(str(partial), tag=_TAG, exclude_frozen_parameters=True)
    torch.save(torch.get_rng_state(), partial / f"rng-rank-{rank}.pt")
    barrier()
    if rank == 0:
        seal_directory(partial, directory, facts)
    barrier()


def world_size(checkpoint: Path) -> int:
    """Ranks that wrote a checkpoint."""
    ranks: int = check_published(checkpoint)["world_size"]
    return ranks


def load_checkpoint(
    engine: Any, checkpoint: Path, *, rank: int, resharded: bool = False, barrier: Callable[[], None] = lambda: None
) -> None:
    """Restore what save_checkpoint wrote; every rank calls it.

    Args:
        resharded: another number of ranks wrote it: it is loaded by way of DeepSpeed's universal form, made beside it
            and removed again, and the engine was started with `load_universal`.
    """
    source = checkpoint
    if resharded:
        source = checkpoint.with_name(checkpoint.name + ".partial")
        if rank == 0:
            shutil.rmtree(source, ignore_errors=True)
            convert_to_universal(checkpoint / _TAG, source / _TAG)
        barrier()
    frozen = any(not parameter.requires_grad for parameter in engine.module.parameters())
    path, _ = engine.load_checkpoint(str(source), tag=_TAG, load_module_strict=not frozen)
    if path is None:
        raise IncompleteVersionError(f"{source}: DeepSpeed found nothing to load")
    state = checkpoint / f"rng-rank-{rank}.pt"
    if state.exists():  # a rank that is new goes on with its own
        torch.set_rng_state(torch.load(state, weights_only=True))
    if resharded:
        barrier()
        if rank == 0:
            shutil.rmtree(source, ignore_errors=True)


def whole_checkpoints(directory: Path) -> Iterator[Checkpoint]:
    """The checkpoints that are whole, newest first."""
    for path in _committed(directory):
        try:
            facts = check_published(path)
        except IncompleteVersionError:
            continue
        yield Checkpoint(
            path=path,
            step=facts["step"],
            version=facts["version"],
            version_path=facts["version_path"],
            version_step=facts["version_step"],
            world_size=facts["world_size"],
        )


def newest_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; one that is not is passed over for the one before."""
    return next(whole_checkpoints(directory), None)


def resumable_versions(directory: Path) -> set[int]:
    """The versions that the whole checkpoints would resume with."""
    return {checkpoint.version for checkpoint in whole_checkpoints(directory)}


def prune_checkpoints(directory: Path, keep: int) -> set[int]:
    """Remove all but the newest `keep` checkpoints; the versions that the kept ones resume with."""
    for path in _committed(directory)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
    return resumable_versions(directory)


def drop_later_checkpoints(directory: Path, step: int) -> None:
    """Remove checkpoints after `step`, which are not whole, and half-written ones: they belong to a dead timeline."""
    for path in directory.glob("step-*"):
        if path.suffix == ".partial" or _step(path) > step:
            shutil.rmtree(path, ignore_errors=True)


def _committed(directory: Path) -> list[Path]:
    """Directories of checkpoints that were committed, newest first."""
    return sorted((path for path in directory.glob("step-*") if path.suffix != ".partial"), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))
