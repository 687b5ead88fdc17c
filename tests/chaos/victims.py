"""The kinds of process that a run consists of, and how one is found among the descendants of its driver."""

from collections.abc import Iterator

import psutil

DRIVER = "driver"
# A part of the title that Ray gives an actor's process. The gate lives in the weight board.
TITLES = {
    "train worker": "RayTrainWorker",
    "sampler": "ProcessEngineSampler",
    "engine": "FakeEngineCore",
    "evaluator": "MortalEvaluator",
    "weight board": "WeightBoard",
    "split coordinator": "SplitCoordinator",
    "train controller": "TrainController",
}
KINDS = (*TITLES, DRIVER)


def processes_of(kind: str, driver: psutil.Process) -> list[psutil.Process]:
    """Living processes of a kind, oldest first; the driver itself stands for all that it started."""
    if kind == DRIVER:
        return [driver]
    found = [process for process, title in _titles(driver) if TITLES[kind] in title]
    if kind == "sampler":  # its engine is a child with a title of its own
        found = [process for process in found if process not in processes_of("engine", driver)]
    return sorted(found, key=lambda process: process.pid)


def kill_family(driver: psutil.Process) -> None:
    """As when a machine dies: the driver, Ray's own processes and every actor, all at once."""
    try:
        family = [driver, *driver.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)


def _titles(driver: psutil.Process) -> Iterator[tuple[psutil.Process, str]]:
    try:
        family = driver.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process, " ".join(process.cmdline())
        except psutil.Error:
            continue
