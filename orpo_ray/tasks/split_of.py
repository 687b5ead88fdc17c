"""The rows of one split, as the configuration's `task` section asks for them."""

from orpo_ray.config.place import TaskConfig
from orpo_ray.tasks.judged import JudgedTask
from orpo_ray.tasks.registry import load_task
from orpo_ray.tasks.splits import SplitSize
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

    A split with a path of its own is read from there; the others are disjoint parts of `task.path`.

    Raises:
        DataError: as `load_task` does.
    """
    own = {"validation": config.validation_path, "test": config.test_path}
    sizes: dict[str, SplitSize] = {
        "train": config.train_size,
        "validation": config.validation_size,
        "test": config.test_size,
    }
    path = own.get(split)
    if path is not None:
        return load_task(config.name, path, split=split, sizes={split: sizes[split] or None}, seed=seed)
    parts = {part: size for part, size in sizes.items() if own.get(part) is None}
    return load_task(config.name, config.path, split=split, sizes=parts, seed=seed)


def has_validation(config: TaskConfig) -> bool:
    """Whether there are validation rows at all."""
    return config.validation_size > 0 or config.validation_path is not None
