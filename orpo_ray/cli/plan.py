"""`orpo-ray plan`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orpo_ray.cli.execute import console_on
from orpo_ray.config import RunConfig
from orpo_ray.deploy.plan import Amounts, Plan, PlannedGroup, make_plan
from orpo_ray.deploy.shape import read_shape, this_machine
from orpo_ray.errors import InputError
from orpo_ray.phases.needs import GIB
from orpo_ray.report.wording import parameters

_SUFFIXES = {"k": 10**3, "M": 10**6, "B": 10**9}


def show_plan(config: RunConfig, cluster: Path | None, *, size: str | None, as_json: bool) -> None:
    """Print a run's plan.

    Args:
        cluster: the file that describes the cluster; this machine where None.
        size: the student's parameters as `135M`, where its files are not here.

    Raises:
        InputError: something does not fit; the plan is printed all the same.
    """
    shape = this_machine() if cluster is None else read_shape(cluster)
    plan = make_plan(config, shape, own_cluster=cluster is None, parameters=count(size) if size else 0)
    if as_json:
        print(json.dumps(plan.to_json(), indent=1, ensure_ascii=False))
    else:
        console = console_on(sys.stdout)
        for part in _parts(plan):
            console.print(part, highlight=False, soft_wrap=isinstance(part, Text))
    if plan.problems:
        lines = [f"  - {phase}: {problem}" for phase, found in plan.problems.items() for problem in found]
        raise InputError(f"{plan.run} does not fit on {plan.cluster}\n" + "\n".join(lines))


def count(size: str) -> int:
    """`135M` as a number.

    Raises:
        InputError: it is none.
    """
    digits, suffix = (size[:-1], size[-1]) if size[-1:] in _SUFFIXES else (size, "")
    try:
        number = float(digits) * _SUFFIXES.get(suffix, 1)
    except ValueError:
        number = 0
    if number < 1:
        raise InputError(f"--student-parameters {size}: write the student's size as 135M or 1.1B")
    return round(number)


def _parts(plan: Plan) -> Iterator[RenderableType]:
    size = parameters(plan.student_parameters) if plan.student_parameters else "not known here (--student-parameters)"
    yield Text(f"{plan.run}: {plan.layout}; student's parameters: {size}\n")
    yield _phases(plan)
    yield Text()
    if plan.amounts is None:
        yield Text("How much it samples is known with task.train_size, or with the rows in a file here (task.path).")
    else:
        yield _amounts(plan.amounts)
    yield Text()
    if not plan.problems:
        yield Text(f"It fits on {plan.cluster}.")


def _phases(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("phase", "actors", "each", "on nodes with"):
        table.add_column(name)
    for phase, groups in plan.phases.items():
        for place, group in enumerate(groups):
            labels = ", ".join(f"{key}={value}" for key, value in group.labels.items())
            where = f"{labels} {group.strategy}".strip()
            table.add_row("" if place else phase, _actors(group), _each(group), Text(where))
    return table


def _actors(group: PlannedGroup) -> str:
    many = f"{group.count}" if group.most == group.count else f"{group.count} to {group.most}"
    return f"{many} {group.name}{'' if group.most == 1 else 's'}"


def _each(group: PlannedGroup) -> str:
    parts = [f"{group.cpus:g} CPU"]
    if group.gpus:
        parts.append(f"{group.gpus:g} GPU")
    if group.memory:
        parts.append(f"{group.memory / GIB:.1f} GiB")
    return ", ".join(parts)


def _amounts(amounts: Amounts) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("at most")
    table.add_column("", justify="right")
    table.add_column("")
    rows = [
        ("teacher's traces", amounts.teacher_traces, f"{amounts.teacher_tokens:,} tokens"),
        ("initial student's traces", amounts.initial_traces, f"{amounts.initial_tokens:,} tokens"),
        ("live student's traces", amounts.live_traces, f"{amounts.live_tokens:,} tokens; expected of policy.phi"),
        ("pairs trained", amounts.pairs, f"in {amounts.steps:,} steps; {amounts.versions} published students"),
        ("evaluations", amounts.evaluations, f"{amounts.evaluation_tokens:,} tokens"),
    ]
    for what, number, more in rows:
        table.add_row(what, f"{number:,}", more)
    disk = amounts.disk_bytes
    table.add_row("on the storage", "not known" if disk is None else f"{disk / GIB:.1f} GiB", "")
    return table
