"""`orpo-ray reproduce`."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orpo_ray.cli.execute import console_on
from orpo_ray.config.experiment import ExperimentConfig, load_experiment
from orpo_ray.controller.lock import RunLock
from orpo_ray.controller.stopping import Interrupted, StopSignals
from orpo_ray.errors import OrpoRayError
from orpo_ray.experiment.execution import Execution, check_parallel
from orpo_ray.experiment.report_files import report_directory, write_report
from orpo_ray.experiment.results import RunResult, is_finished
from orpo_ray.experiment.runs import PlannedRun, planned_runs
from orpo_ray.experiment.text import sections
from orpo_ray.report.wording import from_here


class FailedRunsError(OrpoRayError):
    """Some runs of an experiment failed; the others were made all the same."""


def reproduce(file: Path, overrides: Sequence[str], *, dry_run: bool, report_only: bool) -> None:
    """Make an experiment's runs and compare them.

    Raises:
        InputError: the experiment, or one of its runs' configurations, is wrong. Nothing was started.
        FailedRunsError: runs failed; names them.
        Interrupted: a signal stopped it; the same command goes on.
    """
    experiment = load_experiment(file, overrides)
    runs = planned_runs(experiment, str(file))
    storage = _storage(runs)
    console = console_on(sys.stdout)
    if dry_run:
        console.print(_plan_table(runs, storage), highlight=False)
        return
    failed: Mapping[str, str] = {}
    known: dict[str, RunResult] = {}
    if not report_only:
        check_parallel(runs, experiment.parallel)
        with RunLock(report_directory(storage, experiment.name) / "lock"):
            failed = _make(experiment, runs, storage, console, _command(file, overrides), known)
    report = write_report(experiment, runs, storage, failed, known)
    _print(console, report, storage, experiment.name)
    if failed:
        lines = "\n".join(f"  - {name}: {why}" for name, why in failed.items())
        error = FailedRunsError(f"{len(failed)} of {len({run.name for run in runs})} runs failed\n{lines}")
        error.add_note(f"The others are done. Try the failed ones again with\n  {_command(file, overrides)}")
        raise error


def _make(
    experiment: ExperimentConfig,
    runs: Sequence[PlannedRun],
    storage: Path,
    console: Console,
    command: str,
    known: dict[str, RunResult],
) -> Mapping[str, str]:
    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def after(failed: Mapping[str, str]) -> None:
        write_report(experiment, runs, storage, failed, known)

    execution = Execution(
        experiment.name,
        runs,
        storage,
        parallel=experiment.parallel,
        say=say,
        after=after,
    )
    with StopSignals() as signals:
        try:
            return execution.run().failed
        except KeyboardInterrupt:
            after(execution.outcome.failed)
            done = len(execution.outcome.done) + len(execution.outcome.skipped)
            number = signals.first
            message = f"stopped; {done} of {len({run.name for run in runs})} runs are done. Go on with\n  {command}"
            raise (Interrupted(message, number) if number else Interrupted(message)) from None


def _storage(runs: Sequence[PlannedRun]) -> Path:
    # Runs need not share this process's working directory, and all of them share the storage, for the traces.
    return Path(runs[0].config.storage.path).resolve()


def _command(file: Path, overrides: Sequence[str]) -> str:
    sets = [part for override in overrides for part in ("--set", override)]
    return shlex.join(["orpo-ray", "reproduce", str(file), *sets])


def _plan_table(runs: Sequence[PlannedRun], storage: Path) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "what", "state"):
        table.add_column(heading, overflow="fold")
    for run in runs:
        table.add_row(run.name, run.title, "finished" if is_finished(run, storage) else "to be made")
    return table


def _print(console: Console, report: Mapping[str, object], storage: Path, name: str) -> None:
    for heading, rows, _ in sections(report):
        if heading.startswith("The paper's"):
            continue
        table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
        for cell in rows[0]:
            table.add_column(cell)
        for row in rows[1:]:
            table.add_row(*row)
        console.print()
        console.print(table, highlight=False)
    console.print()
    console.print(
        f"report   {from_here(report_directory(storage, name) / 'index.html')}", markup=False, highlight=False
    )
