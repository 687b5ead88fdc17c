"""Takes a run's numbers from its files to its trackers: beside the run, on the driver, in a thread of its own.

A tracker's server may be slow or gone; neither training nor progress waits for it. Names are the same in each tracker:
`train/<name>` as in metrics.jsonl, at the optimizer step, and `eval/<split>/accuracy` at the step of the student evaluated.
"""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.config.layout import RunLayout
from orpo_ray.config.section import flatten
from orpo_ray.errors import InputError
from orpo_ray.tracking.tracker import Open, Tracker, Trackers, Warn

_POLL_S = 1.0
_END_S = 30.0
_NOT_NUMBERS_TO_TRACK = ("step", "attempt")
_PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}


def check_trackers(config: RunConfig) -> None:
    """Raises InputError where a tracker is asked for whose package is not installed."""
    from importlib.util import find_spec

    for name, package in _PACKAGES.items():
        if getattr(config.tracking, name) not in (False, "off") and find_spec(package) is None:
            raise InputError(
                f"tracking.{name}: the package {package} is not installed; install it with `pip install "
                f"'orpo-ray[{name}]'`, or leave the option out"
            )


class Following:
    """A context in which what comes into the run's files goes to its trackers.

    What was sent before an earlier start ended is not sent again.

    Args:
        warn: is told once of each tracker that fails.
        opens: what opens each tracker; those of the configuration where None.
    """

    def __init__(
        self, config: RunConfig, layout: RunLayout, warn: Warn, opens: Mapping[str, Open] | None = None
    ) -> None:
        self._config, self._layout = config, layout
        self._memory = _Memory(layout.tracked)
        self._trackers = Trackers(self._opens() if opens is None else opens, warn)
        self._warn = warn
        self._offset = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)

    def __enter__(self) -> "Following":
        if self._trackers.working:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)
            if self._thread.is_alive():
                self._warn(f"tracking: not done {_END_S:g} s after the run; what is left is not sent")

    def _follow(self) -> None:
        while True:
            last = self._ended.wait(_POLL_S)
            try:
                # It comes last where a run is brought down from its mirror, with what was sent from elsewhere.
                if self._layout.state.is_file():
                    self._send()
            except Exception as error:
                # Files of the run that cannot be read: the run itself says so, and better.
                self._warn(f"tracking: {type(error).__name__}: {error}; the run goes on without it")
                break
            if last or not self._trackers.working:
                break
        self._trackers.close()

    def _send(self) -> None:
        for line in self._new_lines():
            if line["step"] > self._memory.step:
                values = {f"train/{name}": value for name, value in _numbers(line)}
                self._trackers.log(values, line["step"])
                self._memory.step = line["step"]
        for file in sorted(self._layout.evaluations.glob("epoch-*.json")):
            written = f"{file.name} {file.stat().st_mtime_ns}"
            if written not in self._memory.evaluations:
                evaluation = json.loads(file.read_text(encoding="utf-8"))
                self._trackers.log(_evaluated(evaluation), evaluation["step"])
                self._memory.evaluations.append(written)
        self._memory.save()

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        file = self._layout.metrics
        size = file.stat().st_size if file.exists() else 0
        if size < self._offset:
            # A new attempt dropped the steps of a dead timeline: what comes now is the truth, and is sent though it was
            # sent before.
            self._memory.step = _last_step(file)
            self._offset = size
        if size == self._offset:
            return
        with file.open("rb") as opened:
            opened.seek(self._offset)
            lines = opened.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._offset += len(line)
            yield json.loads(line)

    def _opens(self) -> dict[str, Open]:
        tracking, name = self._config.tracking, self._config.name
        options = flatten(self._config.model_dump(mode="json", by_alias=True))
        opens: dict[str, Open] = {}
        if tracking.tensorboard:
            opens["tensorboard"] = self._tensorboard
        if tracking.mlflow:
            uri = tracking.mlflow_uri or self._layout.mlflow.resolve().as_uri()
            opens["mlflow"] = self._remembered(
                "mlflow", lambda known: _mlflow(uri, tracking.project, name, options, known)
            )
        if tracking.wandb != "off":
            directory, mode = self._layout.wandb, tracking.wandb
            opens["wandb"] = self._remembered(
                "wandb", lambda known: _wandb(directory, mode, tracking.project, name, options, known)
            )
        return opens

    def _tensorboard(self) -> Tracker:
        from orpo_ray.tracking.to_tensorboard import TensorBoard

        return TensorBoard(self._layout.tensorboard)

    def _remembered(self, name: str, open_: Callable[[str | None], Any]) -> Open:
        """Opens the run that an earlier start opened, and remembers it for a later one."""

        def opened() -> Tracker:
            tracker: Any = open_(self._memory.ids.get(name))
            self._memory.ids[name] = tracker.run_id
            return tracker  # type: ignore[no-any-return]

        return opened


def _mlflow(*arguments: Any) -> Any:
    from orpo_ray.tracking.to_mlflow import MLflow

    return MLflow(*arguments)


def _wandb(*arguments: Any) -> Any:
    from orpo_ray.tracking.to_wandb import WandB

    return WandB(*arguments)


class _Memory:
    """What has been sent, over all starts of a run; read when it is first asked for, since --fresh removes it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._data: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._data is None:
            empty: dict[str, Any] = {"step": 0, "evaluations": [], "ids": {}}
            there = json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}
            self._data = empty | there
        return self._data

    @property
    def step(self) -> int:
        return int(self._read()["step"])

    @step.setter
    def step(self, step: int) -> None:
        self._read()["step"] = step

    @property
    def evaluations(self) -> list[str]:
        return self._read()["evaluations"]  # type: ignore[no-any-return]

    @property
    def ids(self) -> dict[str, str]:
        return self._read()["ids"]  # type: ignore[no-any-return]

    def save(self) -> None:
        text = json.dumps(self._read())
        if self._file.is_file() and self._file.read_text(encoding="utf-8") == text:
            return
        partial = self._file.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self._file)


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Plain numbers of a step, and those one level down (`by_policy/live`)."""
    for name, value in line.items():
        below = value.items() if isinstance(value, Mapping) else ()
        for key, number in [(name, value), *((f"{name}/{inner}", inside) for inner, inside in below)]:
            if isinstance(number, int | float) and math.isfinite(number) and name not in _NOT_NUMBERS_TO_TRACK:
                yield key, float(number)


def _evaluated(evaluation: Mapping[str, Any]) -> dict[str, float]:
    at, total = f"eval/{evaluation['split']}", max(1, evaluation["total"])
    return {
        f"{at}/accuracy": evaluation["correct"] / total,
        f"{at}/with_answer": evaluation["parsed"] / total,
        f"{at}/mean_tokens": float(evaluation["mean_tokens"]),
    }


def _last_step(file: Path) -> int:
    lines = file.read_bytes().splitlines() if file.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0
