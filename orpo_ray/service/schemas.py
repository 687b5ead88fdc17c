"""What the control plane takes and gives, as JSON."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_AGAIN = "Seconds until it is worth a look again: the more readers, the more."


class Submission(BaseModel):
    """A run to be started, or gone on with: the same name goes on where it stopped."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] | None = Field(None, description="The run's configuration, section by section.")
    yaml: str | None = Field(None, description="The same as the text of a YAML file; one of the two is given.")
    fresh: bool = Field(False, description="Remove what the run's distillation left, and start it anew.")


class Submitted(BaseModel):
    """A run that the cluster has taken."""

    name: str = Field(description="Under which the service knows it from now on.")
    job: str = Field(description="Ray's id of the job that works on it.")


class Progress(BaseModel):
    """How far the phase at work is."""

    phase: str
    done: int
    total: int
    details: str = Field(description="Rates and means, for people.")
    seconds_left: float | None = Field(description="From the pace of the last minutes; null where it is not known.")


class Accuracy(BaseModel):
    """Right answers on held-out prompts, with the Wilson 95 % interval as shares."""

    correct: int
    total: int
    rate: float | None
    low: float
    high: float


class RunSummary(BaseModel):
    """A run in a list."""

    name: str
    state: str = Field(description="pending, running, done, failed, interrupted or killed.")
    phase: str | None = Field(description="That works, or worked last.")
    started: str | None = Field(description="ISO 8601, UTC.")
    finished: str | None
    error: str | None
    before: Accuracy | None = Field(description="The student before training, on test prompts.")
    now: Accuracy | None = Field(description="The student as it was evaluated last.")
    teacher: Accuracy | None


class RunPage(BaseModel):
    """A page of runs, the newest first."""

    items: list[RunSummary]
    next: str | None = Field(description="`after` of the next page; null where there is none.")
    again_s: float = Field(description=_AGAIN)


class GroupActivity(BaseModel):
    """What one group of workers does, over the last minutes in which anything was done."""

    group: str = Field(description="teacher, samplers, trainer or evaluator.")
    workers: int
    tokens_per_s: float = Field(description="Sampled, or trained on, by the whole group.")
    utilisation: float = Field(
        description="Share of the time with work in hand, waiting at the gate left out; a mean over workers."
    )
    seconds: float = Field(description="Length of the window.")
    until: str = Field(description="Its end: when the last worker of any group was done with something.")


class Activity(BaseModel):
    """What the groups of a run do."""

    items: list[GroupActivity]


class RunDetail(BaseModel):
    """A run in full."""

    name: str
    state: str
    job: str | None = Field(
        description="Ray's id of the newest job that works, or worked, on it; null where it is forgotten."
    )
    error: str | None = Field(description="Why it failed, or was refused.")
    progress: Progress | None
    report: dict[str, Any] | None = Field(
        description="What `orpo-ray show --json` prints; null before the run has begun."
    )


class Lines(BaseModel):
    """A page of a file of JSON lines that may grow."""

    items: list[dict[str, Any]]
    next: int = Field(description="`after` of the next page, also where there is nothing more yet.")
    more: bool = Field(description="Whether there is more already.")


class Live(BaseModel):
    """A run, and what has come since somebody looked before."""

    run: RunDetail
    activity: Activity
    events: Lines
    metrics: Lines
    again_s: float = Field(description=f"{_AGAIN} 0 where there are more lines already.")


class Rows(BaseModel):
    """A page of traces or pairs."""

    items: list[dict[str, Any]]
    next: int | None = Field(description="`after` of the next page; null at the end.")
    looked_at: int = Field(description="Rows that the filters were put to; a page may be short, and not the last.")


class Evaluations(BaseModel):
    """Evaluations by split and epoch, each with some sample answers."""

    items: list[dict[str, Any]]


class Health(BaseModel):
    """Whether the service works."""

    status: str
    service: str = "orpo_ray"
    version: str


class Readiness(BaseModel):
    """Whether it can do its work, and why not."""

    ready: bool
    storage: str
    cluster: str


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
    problems: list[str] = Field(default_factory=list, description="Every mistake of a configuration.")
