"""A fault of the cluster is worth another attempt, an error of ours is not, however deep Ray has wrapped it.

The chains are as Ray makes them; tests/integration has Ray itself make them.
"""

from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import TrainingFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from orpo_ray.errors import (
    DataError,
    OrpoRayError,
    SamplerLostError,
    StaleAttemptError,
    VerifierError,
    WaitTimeout,
)
from orpo_ray.phases.retry import decide, our_error, whole

BROKEN = VerifierError("task sums, row 1+1: LookupError: no table")


def task_error(cause: Exception) -> RayTaskError:
    """What `ray.get` raises for an exception in a task: an instance of RayTaskError and of the cause's class."""
    return RayTaskError("train_worker", f"Traceback (most recent call last):\n{cause!r}", cause).as_instanceof_cause()


def in_worker_group(*causes: Exception) -> TrainingFailedError:
    return WorkerGroupError("Training failed due to worker errors", dict(enumerate(causes)))


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


CHAINS: list[Any] = [
    pytest.param(BROKEN, id="bare"),
    pytest.param(task_error(BROKEN), id="from a task"),
    pytest.param(task_error(task_error(BROKEN)), id="from a task in a task"),
    pytest.param(in_worker_group(task_error(BROKEN)), id="from a train worker"),
    pytest.param(in_worker_group(ValueError("a collective was aborted"), task_error(BROKEN)), id="from one of two"),
    pytest.param(ControllerError(task_error(BROKEN)), id="from the controller"),
    pytest.param(raised_from(RuntimeError("outer"), task_error(BROKEN)), id="raised from"),
]


@pytest.mark.parametrize("error", CHAINS)
def test_our_own_error_is_found_and_never_retried(error: Exception) -> None:
    decision = decide(error, failures=1, limit=3)
    assert not decision.retry
    assert type(decision.error) is VerifierError
    assert str(decision.error) == decision.reason == str(BROKEN)


def test_a_wait_that_ended_is_ours_too() -> None:
    decision = decide(in_worker_group(task_error(WaitTimeout("limits.gate_s: …"))), failures=1, limit=3)
    assert (decision.retry, type(decision.error)) == (False, WaitTimeout)


@pytest.mark.parametrize("error", [ActorDiedError(), in_worker_group(ActorDiedError()), RuntimeError("NCCL\n\n")])
def test_a_fault_of_the_cluster_is_retried_up_to_the_limit(error: Exception) -> None:
    assert our_error(error) is None
    assert [decide(error, failures, limit=3).retry for failures in (1, 2, 3, 4)] == [True, True, True, False]
    assert not decide(error, failures=1, limit=0).retry


def test_a_refused_call_of_an_older_attempt_is_retried() -> None:
    """It says that a newer start exists, not that the input is at fault."""
    assert decide(task_error(StaleAttemptError("a call of attempt 1 …")), failures=1, limit=3).retry


def test_a_lost_sampler_is_done_without() -> None:
    lost = in_worker_group(task_error(SamplerLostError("limits.place_s: …")))
    assert decide(lost, failures=1, limit=3).retry
    assert not decide(lost, failures=4, limit=3).retry


def test_a_line_without_a_word_is_not_the_reason() -> None:
    assert "(peer 10.0.0.7 is gone)" in decide(RuntimeError("peer 10.0.0.7 is gone\n().\n"), failures=1, limit=3).reason


def test_the_runs_events_have_the_whole_traceback() -> None:
    text = whole(raised_from(RuntimeError("outer"), task_error(BROKEN)))
    assert "no table" in text
    assert text.rstrip().endswith("RuntimeError: outer")
    assert "rank 1: LookupError: two" in whole(in_worker_group(ValueError("one"), LookupError("two")))
    assert whole(RuntimeError("x" * 100), limit=10) == "x" * 9 + "\n"


def test_the_person_who_watches_reads_one_line() -> None:
    error = RuntimeError("Traceback\n  File …\nConnectionError: peer 10.0.0.7 is gone\n")
    assert decide(error, failures=1, limit=3).reason == (
        "the worker group failed (ConnectionError: peer 10.0.0.7 is gone); attempt 2 starts from the last checkpoint"
    )
    last = decide(error, failures=4, limit=3)
    assert (
        str(last.error)
        == last.reason
        == (
            "the worker group failed 4 times (limits.failures is 3); the last time: ConnectionError: peer 10.0.0.7 is gone"
        )
    )
    assert type(last.error) is OrpoRayError


def test_exit_codes_outlive_the_way_through_ray() -> None:
    """The command line ends with 2 for bad input."""
    error = decide(in_worker_group(task_error(DataError("rows.jsonl, line 3: …"))), failures=1, limit=3).error
    assert error.exit_code == 2


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert our_error(first) is None
