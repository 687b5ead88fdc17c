"""The rows of one split, as the configuration's `task` section asks for them."""

from orpo_ray.config.place import TaskConfig
from orpo_ray.tasks.judged import JudgedTask
from orpo_ray.tasks.registry import load_task
from orpo_ray.tasks.splits import OtherSplits, SplitSize
from orpo_ray.tasks.task import Task


def split_of(config: TaskConfig, split: str, seed: int) -> Task:
    """The task over its `train`, `validation` or `test` rows, marked by `task.judge` where there is one.

    Raises:
        DataError: as `load_task` does.
    """
    task = _split_of(config, split, seed)
    return task if config.judge is None else JudgedTask(task, config.judge)


def _split_of(config: TaskConfig, split: str, seed: int) -> Task:
    """The task over its `train`, `validation` or `test` rows.

    A split with a path of its own is read from there; the others are disjoint parts of `task.path`. A question is in one
    split only: what a held-out split's own data hold is left out of the parts of `task.path`, and what the test data hold,
    out of the validation data. All rows of such data count, whatever size is taken of them, so that another size leaves
    the training rows as they are.

    Raises:
        DataError: as `load_task` does.
    """
    own = {"test": config.test_path, "validation": config.validation_path}
    sizes: dict[str, SplitSize] = {
        "train": config.train_size,
        "validation": config.validation_size,
        "test": config.test_size,
    }
    before = [name for name, path in own.items() if path is not None]
    if split in before:
        before = before[: before.index(split)]
    others = OtherSplits(tuple(load_task(config.name, own[name], split=name, seed=seed) for name in before))
    path = own.get(split)
    if path is not None:
        return load_task(config.name, path, split=split, sizes={split: sizes[split] or None}, seed=seed, others=others)
    parts = {part: size for part, size in sizes.items() if own.get(part) is None}
    return load_task(config.name, config.path, split=split, sizes=parts, seed=seed, others=others)


def has_validation(config: TaskConfig) -> bool:
    """Whether there are validation rows at all."""
    return config.validation_size > 0 or config.validation_path is not None
