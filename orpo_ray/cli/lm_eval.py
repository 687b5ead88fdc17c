"""`orpo-ray lm-eval`."""

import shlex
from pathlib import Path

from orpo_ray.config import parse_config
from orpo_ray.controller.record import read_record
from orpo_ray.errors import InputError
from orpo_ray.evaluation.lm_eval import write_lm_eval_task
from orpo_ray.report.show import find_run
from orpo_ray.report.wording import from_here


def export_task(run: str, storage: Path, out: Path | None) -> None:
    """Write a run's test questions for the harness and print how to score its student.

    Raises:
        InputError: there is no such run, or it has no student yet.
    """
    layout = find_run(run, storage)
    record = read_record(layout.state)
    if record is None or not layout.export.is_dir():
        raise InputError(f"{layout.run}: has exported no student yet; go on with the run first")
    directory = out or layout.run / "lm-eval"
    command = write_lm_eval_task(parse_config(record.config), layout.export, directory)
    print(f"written  {from_here(directory)}")
    print("score the student, where lm-eval and orpo-ray are both installed, with")
    print(f"  {shlex.join(command)}")
