"""How a process reaches the run's teacher: opened on the driver, carried to the actors that ask."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orpo_ray.config import RunConfig
from orpo_ray.config.models import TeacherConfig
from orpo_ray.engine.model_check import check_model
from orpo_ray.tasks import Task
from orpo_ray.teacher.api import LONGEST_WAIT_S, NO_KEY, ApiTeacher, api_key
from orpo_ray.teacher.key import served_key
from orpo_ray.teacher.protocol import Teacher
from orpo_ray.teacher.recorded import DATASET, DatasetTeacher, check_recorded, check_solutions, load_recorded


@dataclass(frozen=True)
class TeacherAccess:
    """Everything that a teacher's client is built from; it travels to Ray actors by pickle.

    Attributes:
        task: the training task, whose rows may hold solutions.
        base_url, model, key: of the API, for `serve` and `openai`.
        node: id of the Ray node that reaches the API; None where any does.
        patience_s: for so long at least it is tried again; a replica of our own that died comes back within `limits.start_s`.
    """

    config: TeacherConfig
    task: Task
    base_url: str = ""
    model: str = ""
    key: str = field(default="", repr=False)
    node: str | None = None
    patience_s: float = 0.0

    def connect(self, clients: int = 1) -> Teacher:
        """A client of the teacher, one of `clients` that share its bound of requests in flight.

        Call it inside the event loop that will use it.
        """
        if self.config.backend == "recorded":
            assert self.config.path is not None, "checked when the configuration is read"
            return DatasetTeacher(self.task) if self.config.path == DATASET else load_recorded(self.config.path)
        return ApiTeacher(
            base_url=self.base_url,
            model=self.model,
            key=self.key,
            concurrency=max(1, self.config.concurrency // clients),
            timeout_s=self.config.request_timeout_s,
            retries=max(self.config.retries, math.ceil(self.patience_s / LONGEST_WAIT_S)),
        )


def check_teacher(config: RunConfig, task: Task) -> None:
    """See that the teacher can work before anything starts.

    Raises:
        InputError: no model there, or one that vLLM lacks; no key; recorded traces that are broken or belong to
            other prompts; rows without solutions.
    """
    teacher = config.teacher
    if teacher.backend == "serve":
        assert teacher.model is not None, "checked when the configuration is read"
        check_model(teacher.model, "teacher", trust_remote_code=teacher.trust_remote_code)
        served_key(config, own_clients=True)
    elif teacher.backend == "openai":
        api_key(teacher)
    elif teacher.path == DATASET:
        check_solutions(task, task.rows())
    else:
        assert teacher.path is not None
        check_recorded(teacher.path, task.rows())


@contextmanager
def open_teacher(config: RunConfig, task: Task) -> Iterator[TeacherAccess]:
    """The run's teacher, for as long as the context is open; a served one is taken down afterwards.

    Args:
        task: the training task.

    Raises:
        InputError: as `check_teacher`.
        TeacherError, WaitTimeout: as `serve_teacher`.
    """
    check_teacher(config, task)
    teacher = config.teacher
    if teacher.backend == "serve":
        from orpo_ray.teacher.serving import serve_teacher

        with serve_teacher(config) as endpoint:
            url, key, patience_s = endpoint.base_url, endpoint.key or NO_KEY, config.limits.start_s
            yield TeacherAccess(teacher, task, url, endpoint.model, key, endpoint.node, patience_s)
    elif teacher.backend == "openai":
        yield TeacherAccess(teacher, task, teacher.base_url or "", teacher.model or "", api_key(teacher))
    else:
        yield TeacherAccess(teacher, task)
