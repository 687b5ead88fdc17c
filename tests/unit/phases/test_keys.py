"""What a key is made from."""

from pathlib import Path

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.distill import Distill
from orpo_ray.phases.keys import result_of


def config() -> RunConfig:
    return parse_config({"task": {"name": "arithmetic"}, "teacher": {"model": "t"}, "student": {"model": "s"}})


def context_on(storage: Path) -> RunContext:
    context = RunContext(config(), RunLayout(storage, "toy"), lambda kind, **fields: None)
    context.results["SEED"] = {"path": str(storage / "traces" / "student-k1"), "traces": 8, "of": ["/models/s"]}
    return context


def test_paths_on_the_storage_are_seen_from_there() -> None:
    assert result_of(context_on(Path("/a")), "SEED") == {"path": "traces/student-k1", "traces": 8, "of": ["/models/s"]}


def test_where_the_storage_lies_changes_no_key() -> None:
    assert Distill().key(context_on(Path("/a"))) == Distill().key(context_on(Path("/b/c")))
