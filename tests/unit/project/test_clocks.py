"""Limits and durations are measured on clocks that nobody sets: a wall clock may jump."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
# Where the time of day is what is meant: time stamps in a run's record, events and logs, in a submission's name, in MLflow's points.
STAMPS = {
    "controller/machine.py", "controller/events.py", "client/operations.py", "tracking/to_mlflow.py", "tracking/told.py",
}  # fmt: skip
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")}


def wall_clocks(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in WALL:
            yield f"{file.relative_to(ROOT)}:{node.lineno}: {node.value.id}.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"{file.relative_to(ROOT)}:{node.lineno}" for name in node.names if name.name == "time")


def test_the_time_of_day_is_asked_for_time_stamps_only() -> None:
    package = ROOT / "orpo_ray"
    found = [
        use
        for file in sorted(package.rglob("*.py"))
        if str(file.relative_to(package)) not in STAMPS
        for use in wall_clocks(file)
    ]
    # `show` tells how long a running phase has been at work, from the time stamp in its record.
    assert [use for use in found if not use.startswith("orpo_ray/report/show.py")] == []


def test_a_wall_clock_would_be_found(tmp_path: Path) -> None:
    assert list(wall_clocks(ROOT / "orpo_ray/controller/machine.py")), "it stamps its record"
