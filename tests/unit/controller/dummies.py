"""Phases that do nothing but count, and a clock that the test turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.config.fingerprint import fingerprint, held_out, what_matters
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller import ORDER, Controller
from orpo_ray.phases.context import RunContext


def config(**changes: Any) -> RunConfig:
    """A small configuration; `changes` are whole sections, or options of the top level."""
    data: dict[str, Any] = {
        "name": "toy",
        "task": {"name": "arithmetic", "test_size": 10},
        "teacher": {"model": "models/teacher"},
        "student": {"model": "models/student"},
    }
    return parse_config(data | changes)


@dataclass
class Clock:
    """Seconds since the epoch, as the test has it."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def training_rows(config: RunConfig) -> Any:
    """As where the test split is cut off the training file: more test rows, other training rows."""
    return config.task.test_size if config.task.path and not config.task.test_path else None


# The options that each phase's key depends on, besides the results before it.
_READS: dict[str, Callable[[RunConfig], Any]] = {
    "PREPARE": lambda config: config.task.name,
    "TEACH": lambda config: [config.sampling.k, config.task.name, config.eval.max_tokens, held_out(config)],
    "SEED": lambda config: [config.sampling.k, config.student.model],
    "DISTILL": what_matters,
    "EVALUATE": lambda config: [config.eval.max_tokens, held_out(config)],
    "EXPORT": lambda config: config.export.select,
}


@dataclass
class Dummy:
    """A phase that returns its key and leaves a file behind."""

    name: str
    clock: Clock
    seconds: float = 10.0
    runs: int = 0
    returns: dict[str, Any] = field(default_factory=dict)
    does: Callable[[RunContext], None] = lambda context: None

    def key(self, context: RunContext) -> str:
        before = [context.results[name] for name in ORDER[1 : ORDER.index(self.name)]]
        return fingerprint(_READS[self.name](context.config), before)

    def pairs_key(self, context: RunContext) -> str:
        if self.name == "TEACH":
            return fingerprint(context.config.sampling.k, context.config.task.name, training_rows(context.config))
        return self.key(context)

    def run(self, context: RunContext) -> dict[str, Any]:
        self.runs += 1
        self.clock.now += self.seconds
        self.does(context)
        file = context.layout.run / f"{self.name}.out"
        file.write_text(self.key(context))
        return {"file": str(file), "made_of": self.pairs_key(context)} | self.returns

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        return Path(result["file"]).is_file()


@dataclass
class Toy:
    """A storage with one run in it, started as often as a test likes."""

    storage: Path
    clock: Clock = field(default_factory=Clock)
    returns: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.phases = {name: Dummy(name, self.clock, returns=self.returns.get(name, {})) for name in ORDER}

    def controller(self, config: RunConfig) -> Controller:
        return Controller(
            config,
            self.layout(config),
            list(self.phases.values()),
            command="orpo-ray run toy.yaml",
            listeners=[lambda kind, fields: self.events.append((kind, fields))],
            clock=self.clock,
        )

    def layout(self, config: RunConfig) -> RunLayout:
        return RunLayout(self.storage, config.name)

    def run(self, config: RunConfig, *, fresh: bool = False) -> list[str]:
        """Start the run; the phases that had to work, in order."""
        before = {name: phase.runs for name, phase in self.phases.items()}
        self.controller(config).run(fresh=fresh)
        return [name for name, phase in self.phases.items() if phase.runs > before[name]]

    def kinds(self, *wanted: str) -> Sequence[tuple[str, str]]:
        """(kind, phase) of the events so far."""
        return [(kind, fields["phase"]) for kind, fields in self.events if kind in wanted]

    def commit_checkpoint(self, context: RunContext) -> None:
        (context.layout.checkpoints / "step-000010").mkdir(parents=True)
