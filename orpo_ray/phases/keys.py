"""What each phase's result depends on (DESIGN promise 8): change one of these, and only then is it done again."""

import hashlib
import json
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.config.models import TeacherConfig
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.student import student_directory
from orpo_ray.tasks import Task
from orpo_ray.teacher.recorded import DATASET
from orpo_ray.traces.model_fingerprint import model_fingerprint


def result_of(context: RunContext, phase: str) -> Any:
    """What an earlier phase returned, for a key: paths on the storage as seen from there, since where it lies changes nothing."""
    return _seen_from(context.layout.storage, context.results[phase])


def _seen_from(storage: Path, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _seen_from(storage, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_seen_from(storage, inner) for inner in value]
    return value.removeprefix(f"{storage}/") if isinstance(value, str) else value


def teach_depends_on(config: RunConfig, task: Task) -> dict[str, Any]:
    """What the teacher's traces of the rows of `task` are a function of.

    Not the policy, the student or the training; nor how many requests are in flight or where the teacher runs.
    """
    return {
        "task": config.task.name,
        "rows": rows_fingerprint(task),
        "teacher": teacher_identity(config.teacher),
        "sampling": config.sampling.model_dump(mode="json"),
        "seed": config.seed,
        **_judge(config),
    }


def teacher_test_depends_on(config: RunConfig, task: Task) -> dict[str, Any]:
    """What the teacher's greedy accuracy on the rows of `task` is a function of."""
    return {
        "task": config.task.name,
        "rows": rows_fingerprint(task),
        "teacher": teacher_identity(config.teacher),
        "max_tokens": config.eval_max_tokens,
        **_judge(config),
    }


def _judge(config: RunConfig) -> dict[str, Any]:
    """Who marks the answers, and how; nothing where the task's own verifier does."""
    if config.task.judge is None:
        return {}
    how = {"base_url", "model", "rubric", "votes", "temperature", "max_tokens"}
    return {"judge": config.task.judge.model_dump(mode="json", include=how)}


def evaluation_key(config: RunConfig, task: Task) -> str:
    """Fingerprint of whose students are evaluated on the rows of `task`, and how; another's are not compared with them."""
    asked = config.eval.model_dump(mode="json", exclude={"samples_kept"}) | {"max_tokens": config.eval_max_tokens}
    student = model_fingerprint(student_directory(config))
    return fingerprint(config.task.name, rows_fingerprint(task), asked, _judge(config), config.seed, student)


def teach_key(config: RunConfig, task: Task) -> str:
    """The fingerprint under which the teacher's traces are found again."""
    return fingerprint(teach_depends_on(config, task))


def teacher_identity(teacher: TeacherConfig) -> dict[str, Any]:
    """Who the teacher is: weights and engine precision, a model at a URL, or a file's content."""
    if teacher.backend == "serve":
        assert teacher.model is not None, "checked when the configuration is read"
        engine = teacher.engine.model_dump(mode="json", include={"dtype", "max_model_len", "extra"})
        return {"backend": "serve", "model": model_fingerprint(teacher.model), "engine": engine}
    if teacher.backend == "openai":
        return {"backend": "openai", "model": teacher.model, "base_url": teacher.base_url}
    assert teacher.path is not None
    return {"backend": "recorded", "traces": DATASET if teacher.path == DATASET else file_fingerprint(teacher.path)}


def rows_fingerprint(task: Task) -> str:
    """16 hex digits for the rows of a task: how they are asked, and all they hold."""
    digest = hashlib.sha256()
    for row in task.rows():
        line = [row.id, list(task.messages(row)), dict(row.data)]
        digest.update(json.dumps(line, ensure_ascii=False, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def file_fingerprint(path: str) -> str:
    """16 hex digits for a file's content; the path itself where it is not a local file."""
    if not Path(path).is_file():
        return path
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
