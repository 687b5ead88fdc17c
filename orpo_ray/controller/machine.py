"""The state machine: PREPARE → TEACH → SEED → DISTILL → EVALUATE → EXPORT, each found or done, in this order."""

import json
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orpo_ray import __version__
from orpo_ray.config import RunConfig
from orpo_ray.config.fingerprint import held_out, what_matters
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller import distillation
from orpo_ray.controller.events import Clock, EventLog, Listener, timestamp
from orpo_ray.controller.lock import RunLock
from orpo_ray.controller.record import Beginning, PhaseRecord, PhaseState, RunRecord, read_record, write_record
from orpo_ray.controller.stopping import Interrupted, StopSignals
from orpo_ray.errors import InputError, OrpoRayError
from orpo_ray.mirror import mirror_of
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.phase import Phase
from orpo_ray.phases.retry import our_error

ORDER = ("PREPARE", "TEACH", "SEED", "DISTILL", "EVALUATE", "EXPORT")
_UPSTREAM = ("TEACH", "SEED")


class Controller:
    """Takes one run from wherever it stands to its end.

    Args:
        phases: one for each name of `ORDER`, in that order.
        command: the command line that resumes the run, for messages.
        listeners: told of every event, after it is written.
        clock: seconds since the epoch.
        signals: entered by the caller, who cleans up below it.
    """

    def __init__(
        self,
        config: RunConfig,
        layout: RunLayout,
        phases: Sequence[Phase],
        *,
        command: str = "orpo-ray run",
        listeners: Sequence[Listener] = (),
        clock: Clock = time.time,
        signals: StopSignals | None = None,
    ) -> None:
        names = tuple(phase.name for phase in phases)
        if names != ORDER:
            raise ValueError(f"the phases of a run are {', '.join(ORDER)}; given are {', '.join(names)}")
        self._config, self._layout, self._phases = config, layout, phases
        self._command, self._listeners, self._clock = command, listeners, clock
        self._signals = signals or StopSignals()
        self._mirror = mirror_of(config, layout)
        # Of the phases before DISTILL, as this start finds them: what the pairs depend on.
        self._upstream: dict[str, str] = {}

    def run(self, *, fresh: bool = False) -> RunRecord:
        """Do what is not done yet.

        Args:
            fresh: remove what the distillation left and start it anew; traces are found again all the same.

        Raises:
            InputError: the storage cannot be written, another process works on the run, its distillation began with
                another configuration, or its mirror cannot be used.
            Interrupted: a signal stopped it; the record says so.
            OrpoRayError: a phase failed, or the mirror is not whole; the record says which and why, the error's notes how
                to go on.
        """
        self._mirror.check()
        with RunLock(self._layout.lock), self._mirror.opened() as brought, self._events() as say:
            record = self._opened(fresh)
            say("run.start", name=record.name, command=self._command, orpo_ray=__version__)
            for text in brought:
                say("note", text=text)
            with self._mirror.following(say):
                return self._through(record, say)

    def _through(self, record: RunRecord, say: EventLog) -> RunRecord:
        """All phases, and the run's end."""
        context = RunContext(self._config, self._layout, say)
        at = ORDER[0]
        try:
            for phase in self._phases:
                at = say.phase = phase.name
                self._signals.rearm()
                self._take(phase, record, context)
            record.state, record.finished = PhaseState.DONE, self._now()
            self._write(record)
            say("run.done", name=record.name)
            self._mirror.settle()
            return record
        except BaseException as error:
            interrupted = self._ended(record, say, at, error)
            if interrupted is not None:
                raise interrupted from error
            if getattr(error, "exit_code", 1) == 1:
                error.add_note(f"What is finished is kept. Go on with\n  {self._command}")
            raise

    def _events(self) -> EventLog:
        listeners = [self._mirror.listen, *self._listeners]
        return EventLog(self._layout.events, listeners, self._clock, self._config.name)

    def _opened(self, fresh: bool) -> RunRecord:
        """The run's record with this start written into it, unless the configuration may not be."""
        record = read_record(self._layout.state) or RunRecord(
            name=self._config.name,
            orpo_ray=__version__,
            command=self._command,
            state=PhaseState.RUNNING,
            started=self._now(),
            finished=None,
            config={},
        )
        for phase in record.phases.values():
            if phase.state is PhaseState.RUNNING:  # its process was killed
                phase.state = PhaseState.INTERRUPTED
        if fresh:
            distillation.start_anew(record, self._layout)
        else:
            distillation.refuse_other_configuration(record, self._layout, self._config)
        record.orpo_ray, record.command = __version__, self._command
        record.state, record.finished, record.error = PhaseState.RUNNING, None, None
        record.config = self._config.model_dump(mode="json", by_alias=True)
        self._write(record)
        return record

    def _take(self, phase: Phase, record: RunRecord, context: RunContext) -> None:
        """Find the phase's result, or do its work."""
        with _our_errors(phase.name, context.layout):
            key = phase.key(context)
            pairs_key = phase.pairs_key(context)
        known = record.phases.get(phase.name)
        distillation.refuse_other_inputs(record, self._layout, self._config, phase.name, pairs_key)
        if phase.name in _UPSTREAM:
            self._upstream[phase.name] = pairs_key
        if known and known.state is PhaseState.DONE and known.fingerprint == key:
            if phase.still_there(context, known.result):
                context.results[phase.name] = known.result
                context.say("phase.found", phase=phase.name, seconds=known.seconds, result=known.result)
                return
            context.say("note", text=f"{phase.name}: its files are gone, so it is done again")
        if phase.name == distillation.PHASE:
            self._begin_distillation(record, key)
        self._work(phase, key, record, context)

    def _begin_distillation(self, record: RunRecord, key: str) -> None:
        """Remember what it begins with; leftovers of one that got to no checkpoint must not enter it."""
        if record.beginning is None or record.beginning.fingerprint != key:
            distillation.drop_leftovers(record, self._layout)
            record.beginning = Beginning(key, what_matters(self._config), held_out(self._config), dict(self._upstream))

    def _work(self, phase: Phase, key: str, record: RunRecord, context: RunContext) -> None:
        known = record.phases.get(phase.name)
        going_on = known is not None and known.fingerprint == key and known.state is not PhaseState.DONE
        current = PhaseRecord(
            PhaseState.RUNNING, key, self._now(), seconds=known.seconds if known and going_on else 0.0
        )
        record.phases[phase.name] = current
        self._write(record)
        context.say("phase.start", phase=phase.name)
        began = self._clock()
        try:
            with _our_errors(phase.name, context.layout):
                result = phase.run(context)
        finally:
            current.seconds = round(current.seconds + self._clock() - began, 3)
            current.finished = self._now()
        # Keys of later phases must not depend on whether a result comes from here or from the file.
        current.result = json.loads(json.dumps(result))
        current.state = PhaseState.DONE
        context.results[phase.name] = current.result
        self._write(record)
        context.say("phase.done", phase=phase.name, seconds=current.seconds, result=current.result)

    def _ended(self, record: RunRecord, say: EventLog, at: str, error: BaseException) -> Interrupted | None:
        """Put on record that the run stopped at phase `at`; an exception in place of `error` where a signal did it."""
        # After a signal, libraries raise what they like: SystemExit, or an error about what was torn down.
        stopped = self._signals.first is not None or isinstance(error, KeyboardInterrupt)
        record.state = PhaseState.INTERRUPTED if stopped else PhaseState.FAILED
        record.finished, record.error = self._now(), None if stopped else str(error)
        phase = record.phases.get(at)
        if phase is not None and phase.state is PhaseState.RUNNING:
            phase.state, phase.error = record.state, record.error
        self._write(record)
        if not stopped:
            say(
                "run.failed",
                phase=at,
                cause=type(error).__name__,
                error=str(error),
                traceback="".join(traceback.format_exception(error)),
            )
            return None
        say("run.interrupted", phase=at)
        number = self._signals.first or signal.SIGINT
        return Interrupted(f"stopped in {at}; what is finished is kept. Go on with\n  {self._command}", number)

    def _write(self, record: RunRecord) -> None:
        try:
            write_record(self._layout.state, record)
        except OSError as error:
            raise InputError(f"storage.path: {self._layout.state} cannot be written ({error.strerror})") from None

    def _now(self) -> str:
        return timestamp(self._clock())


@contextmanager
def _our_errors(phase: str, layout: RunLayout) -> Iterator[None]:
    """Turns any exception of a phase into one of ours: the cause's own message, or one that names it."""
    try:
        yield
    except Exception as error:
        ours = our_error(error)
        if ours is error:
            raise
        if ours is None:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            last = lines[-1] if lines else "without a message"
            ours = OrpoRayError(f"{phase} failed: {type(error).__name__}: {last}")
            ours.add_note(f"The traceback is in {layout.events}")
        raise ours from error
