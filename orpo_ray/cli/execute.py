"""The commands that start Ray: they connect the controller, the phases, the cluster and what a person sees."""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from orpo_ray.cli.library_output import library_output
from orpo_ray.config import RunConfig
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller import Controller
from orpo_ray.controller.stopping import StopSignals
from orpo_ray.errors import InputError
from orpo_ray.phases.cluster import in_job
from orpo_ray.phases.context import RunContext
from orpo_ray.report.progress import progress_on, remark
from orpo_ray.report.show import run_report
from orpo_ray.report.table import accuracy_table, print_report
from orpo_ray.report.wording import several_answers_sentence
from orpo_ray.tracking.driver_metrics import DriverMetrics
from orpo_ray.tracking.follow import Following, check_trackers

# Where Ray unpacks what was sent along with a job.
_UNPACKED = "working_dir_files"


def resuming(command: str, file: str | None, overrides: Sequence[str]) -> str:
    """The command line that goes on with a run; without --fresh, which would start it anew once more."""
    sets = [part for override in overrides for part in ("--set", override)]
    return shlex.join(["orpo-ray", command, *([file] if file else []), *sets])


def execute(config: RunConfig, *, command: str, fresh: bool = False) -> None:
    """Take a run to its end and print its report.

    Raises:
        OrpoRayError: as `Controller.run`; Ray is left, and nothing runs on.
    """
    from orpo_ray.phases import all_phases
    from orpo_ray.phases.cluster import embedded

    check_trackers(config)
    layout = _layout(config)
    console = console_on(sys.stdout)
    if in_job():  # the log may be all that a person sees, or `orpo_ray.client`, which reads this line
        console.print(f"run {layout.name} at {layout.run}", markup=False, highlight=False, soft_wrap=True)
    progress = progress_on(console)
    metrics = DriverMetrics(config, lasting=not embedded())
    tracking = Following(config, layout, lambda text: progress("note", {"text": text}))
    with StopSignals() as signals, library_output(layout.log):
        controller = Controller(
            config, layout, all_phases(), command=command, listeners=[progress, metrics], signals=signals
        )
        with _leaving_ray(), progress, tracking:
            controller.run(fresh=fresh)
    print_report(console, run_report(layout, alive=False))


def serve_until_stopped(config: RunConfig) -> None:
    """Serve the teacher until Ctrl-C, and say how to reach it."""
    from orpo_ray.phases.cluster import connect
    from orpo_ray.teacher.app import check_served
    from orpo_ray.teacher.key import served_key
    from orpo_ray.teacher.serving import serve_teacher, usage

    console = console_on(sys.stdout)
    check_served(config)  # refused before Ray is started
    served_key(config, own_clients=False)
    with StopSignals(), library_output(Path(os.devnull)), _leaving_ray():
        connect(config)
        with serve_teacher(config, own_clients=False) as endpoint:
            if endpoint.key is None and endpoint.node is None:
                console.print(
                    f"WARNING: the teacher at {endpoint.base_url} listens to other machines too, and asks for no key: "
                    "whoever reaches it uses it",
                    style="bold red",
                )
            console.print(
                usage(endpoint, config.teacher.serve.api_key_env), markup=False, highlight=False, soft_wrap=True
            )
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                console.print("stopping the teacher", highlight=False)


def evaluate_directory(config: RunConfig, model: Path) -> None:
    """Print the held-out accuracy of the model in a directory, or of the student with the adapter in it."""
    from orpo_ray.engine.adapters import is_adapter
    from orpo_ray.engine.model_check import check_model
    from orpo_ray.phases.cluster import connect
    from orpo_ray.phases.evaluate import evaluate_model

    console = console_on(sys.stdout)
    with StopSignals(), library_output(Path(os.devnull)), _leaving_ray():
        whole = config.student.model if is_adapter(model) else str(model)
        check_model(whole, "student", trust_remote_code=config.student.trust_remote_code)
        connect(config)
        context = RunContext(config, _layout(config), _say_on(console))
        evaluations = evaluate_model(context, model.resolve())
    for evaluation in evaluations:
        console.print(accuracy_table(evaluation["split"], [evaluation], name=str(model)), highlight=False)
        several = several_answers_sentence(evaluation)
        if several is not None:
            console.print(several.removeprefix("before: "), markup=False, highlight=False)


def console_on(stream: Any) -> Console:
    """A console on `stream`; where that is no terminal, wide enough for a table's sentences."""
    return Console(file=stream) if stream.isatty() else Console(file=stream, width=140)


def _layout(config: RunConfig) -> RunLayout:
    # Workers need not share this process's working directory.
    storage = Path(config.storage.path).resolve()
    if in_job() and _UNPACKED in storage.parts:
        raise InputError(
            f"storage.path: {config.storage.path} lies in the job's working directory, which is gone with the job; give "
            "an absolute path that every node of the cluster sees"
        )
    return RunLayout(storage, config.name)


@contextmanager
def _leaving_ray() -> Iterator[None]:
    """Leaves Ray at the end, however that comes. Ray is not imported for it where no phase needed it."""
    try:
        yield
    finally:
        if "ray" in sys.modules:
            from orpo_ray.phases.cluster import disconnect

            disconnect()


def _say_on(console: Console) -> Any:
    def say(kind: str, **fields: Any) -> None:
        line = remark(kind, fields)
        if line is not None:
            console.print(line, markup=False, highlight=False)

    return say
