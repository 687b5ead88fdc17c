"""The gated stream of pair groups on fake engines: order, the tail, staleness, the journal, and faults.

Real here are the board, the samplers, Ray Data's execution and Ray Train's split over two ranks; fake are the engine
(tests/tiny/fake_engine.py) and the worker group, two threads that read and publish as train workers do.
"""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.errors import ConfigError, VerifierError, WaitTimeout
from orpo_ray.pairs import PlanRow
from orpo_ray.phases.retry import decide
from orpo_ray.sampling.journal import Journal
from tests.tiny.fake_engine import read_calls, sampled_by
from tests.tiny.runs import tiny_config
from tests.tiny.stream import StreamRun, Trained

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

BATCH, BLOCK, RANKS, EPOCHS, PROMPTS = 8, 2, 2, 2, 20
STEPS = 6  # two epochs of 20 prompts in batches of 8: three steps each, the third filled up with 4 rows of weight 0
ROWS = 48


def stream_run(directory: Path, *, seconds: float = 0.0, **sections: Any) -> StreamRun:
    """20 prompts, 2 epochs, batches of 8 in blocks of 2 for 2 ranks, one sampler."""
    fixed = {"sampling": {"k": 3, "max_tokens": 12, "rouge_l_max": 1.0}}
    config = tiny_config(directory, Path("student"), **fixed, **sections)
    assert (config.train.global_batch, config.train.workers, config.block_rows) == (BATCH, RANKS, BLOCK)
    return StreamRun(config, directory, prompts=PROMPTS, seconds=seconds)


def plan_of(run: StreamRun) -> list[PlanRow]:
    return [run.plan.row(index) for index in range(run.geometry.rows)]


def indices(rows: list[Trained], **where: int) -> list[int]:
    return [row.group.index for row in rows if all(getattr(row, name) == value for name, value in where.items())]


def live_rows(run: StreamRun) -> list[PlanRow]:
    return [row for row in plan_of(run) if row.policy == "live"]


def asked(run: StreamRun) -> Counter[str]:
    """How often each prompt was sampled; one that is cut off by a kill counts too."""
    return Counter(prompt_id for call in read_calls(run.calls) for prompt_id in call["asked"])


def asked_once(run: StreamRun) -> Counter[str]:
    """How often each prompt has to be sampled."""
    return Counter(row.prompt_id for row in live_rows(run))


@pytest.fixture(scope="module")
def strict_run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> StreamRun:
    """Refresh by epoch at staleness 0, φ 0.5, an epoch that is not whole batches, two samplers."""
    run = stream_run(tmp_path_factory.mktemp("strict"), resources={"block_rows": BLOCK, "samplers": 2})
    assert (run.geometry.steps, run.geometry.rows) == (STEPS, ROWS)
    return run


@pytest.fixture(scope="module")
def strict(strict_run: StreamRun) -> list[Trained]:
    return strict_run.train()


def test_blocks_go_to_the_ranks_in_turn_and_in_order(strict: list[Trained]) -> None:
    """Way 1 to hang: order that is not set through Train's DataConfig."""
    for step in range(STEPS):
        first = step * BATCH
        assert indices(strict, step=step, rank=0) == [first, first + 1, first + 4, first + 5]
        assert indices(strict, step=step, rank=1) == [first + 2, first + 3, first + 6, first + 7]


@pytest.mark.parametrize("block", [8, 5])
def test_a_block_that_does_not_divide_is_refused_before_it_can_hang(tmp_path: Path, block: int) -> None:
    """Way 2 to hang: 24 rows in blocks of 8 for 2 ranks; blocks of 4 flow."""
    train = {"global_batch": 24, "micro_batch": 2}
    with pytest.raises(ConfigError, match=rf"resources.block_rows: {block} × train.workers 2 .* fitting are .*4"):
        tiny_config(tmp_path, Path("student"), train=train, resources={"block_rows": block})


def test_the_block_that_the_refusal_names_flows(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        Path("student"),
        train={"global_batch": 24, "micro_batch": 2, "epochs": 1},
        resources={"block_rows": 4},
        policy={"phi": 0.0},
    )
    rows = StreamRun(config, tmp_path, prompts=48).train()
    assert sorted(indices(rows)) == list(range(48))


def test_an_epoch_that_is_not_whole_batches_is_filled_up(strict: list[Trained], strict_run: StreamRun) -> None:
    """Way 3 to hang: the batch that straddles two epochs would wait for the version that its own training makes."""
    for epoch in range(1, EPOCHS + 1):
        of_epoch = [row.group for row in strict if row.group.epoch == epoch]
        assert sorted(group.prompt_id for group in of_epoch if group.real) == sorted(strict_run.prompt_ids)
        assert sum(not group.real for group in of_epoch) == 4
    assert {row.group.epoch for row in strict if row.step < 3} == {1}
    assert all(row.step in (2, 5) for row in strict if not row.group.real)


def test_no_row_of_the_tail_is_lost(strict: list[Trained]) -> None:
    """Way 4 to lose rows: an unequal last batch that `drop_last` and `equal=True` cut off."""
    assert sorted(indices(strict)) == list(range(ROWS))
    assert Counter((row.step, row.rank) for row in strict) == dict.fromkeys(
        [(step, rank) for step in range(STEPS) for rank in range(RANKS)], BATCH // RANKS
    )


def test_negatives_fall_back_from_live_to_initial_to_none(strict: list[Trained], strict_run: StreamRun) -> None:
    """The fake student is always right where a = 0, and has no initial negatives where b = 0."""
    seen = set()
    for row, trained in zip(plan_of(strict_run), sorted(strict, key=lambda row: row.group.index), strict=True):
        group = trained.group
        assert (group.coin, group.prompt_id) == (row.policy, row.prompt_id)
        a, b = map(int, group.prompt_id.split("+"))
        wanted = "live" if row.policy == "live" and a else "initial" if b else "none"
        assert group.policy == wanted
        assert [place < 0 for place in group.pair_rejected] == [wanted == "none"] * group.pairs
        seen.add(wanted)
    assert seen == {"live", "initial", "none"}


def test_a_group_carries_the_version_that_sampled_it(strict: list[Trained]) -> None:
    """The fake engine writes its version into its tokens."""
    live = [row for row in strict if row.group.policy == "live"]
    assert {row.group.version for row in live} == {0, 1}
    for row in live:
        assert {sampled_by(trace) for trace in row.group.rejected} == {row.group.version}


def test_the_journal_holds_what_was_trained(strict: list[Trained], strict_run: StreamRun) -> None:
    from orpo_ray.pairs import from_table

    journal = Journal(strict_run.spec.journal, BATCH)
    tables = [journal.find(first, BLOCK) for first in range(0, ROWS, BLOCK)]
    groups = [repr(group) for table in tables if table is not None for group in from_table(table)]
    assert groups == [repr(row.group) for row in sorted(strict, key=lambda row: row.group.index)]


@pytest.mark.parametrize(("bound", "refresh"), [(0, 1), (1, 2), (2, 1)])
def test_staleness_stays_within_its_bound_and_uses_it(tmp_path: Path, bound: int, refresh: int) -> None:
    """φ 1: every real row is asked of the live student. A slow trainer, so that the samplers run ahead as far as they may."""
    run = stream_run(tmp_path, policy={"phi": 1.0, "refresh": refresh, "max_staleness": bound})
    rows = run.train(step_seconds=0.2)
    assert {row.group.coin for row in rows if row.group.real} == {"live"}
    staleness = [row.staleness for row in rows if row.group.policy == "live"]
    assert len(staleness) == EPOCHS * 10  # the rows where the fake student errs: a = 1
    assert min(staleness) >= 0
    assert max(staleness) == bound
    assert run.removable == [f"version-{number}" for number in range(1, run.geometry.version_at(STEPS))]


def test_without_live_rows_no_engine_is_ever_asked(tmp_path: Path) -> None:
    run = stream_run(tmp_path, policy={"phi": 0.0})
    rows = run.train()
    assert sorted(indices(rows)) == list(range(ROWS))
    assert {row.group.policy for row in rows} == {"initial", "none"}
    assert {row.group.version for row in rows} == {0}
    assert read_calls(run.calls) == []


def test_a_cursor_yields_the_rest_and_the_journal_is_not_sampled_again(tmp_path: Path) -> None:
    """The first life is cut off after one step, when all of its epoch is sampled; the second goes on at step 1."""
    run = stream_run(tmp_path, policy={"phi": 1.0})
    files = run.spec.journal.glob

    def sampled_ahead(step: int) -> bool:
        wait_for(lambda: len(list(files("step-*/rows-*.parquet"))) == 3 * BATCH // BLOCK)
        return True

    first = run.train(stop=sampled_ahead)
    assert {row.step for row in first} == {0}
    calls = len(read_calls(run.calls))
    rest = run.train(first_step=1)
    assert sorted(indices(rest)) == list(range(BATCH, ROWS))
    again = {prompt for call in read_calls(run.calls)[calls:] for prompt in call["asked"]}
    assert again == set(run.prompt_ids)
    assert {call["version"] for call in read_calls(run.calls)[calls:]} == {1}  # the second epoch's only
    assert asked(run) == asked_once(run)


def test_a_killed_sampler_loses_and_repeats_nothing(tmp_path: Path) -> None:
    run = stream_run(
        tmp_path,
        seconds=0.3,
        policy={"phi": 1.0, "refresh": 1, "max_staleness": 0},
        resources={"block_rows": BLOCK, "samplers": 2},
    )
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: len(read_calls(run.calls)) >= 10)
        killed.append(read_calls(run.calls)[-1]["pid"])
        os.kill(killed[0], signal.SIGKILL)  # in the middle of a call, while it holds a version

    with beside(kill):
        rows = run.train()
    for step in range(STEPS):
        assert sorted(indices(rows, step=step)) == list(range(step * BATCH, (step + 1) * BATCH))
    assert {row.staleness for row in rows if row.group.policy == "live"} == {0}
    assert asked(run) > asked_once(run)  # what it was working on was asked again
    pids = [call["pid"] for call in read_calls(run.calls)]
    assert killed[0] not in pids[len(pids) - pids[::-1].index(killed[0]) :]
    # The dead reader's hold is gone: every version but the newest went in its turn.
    assert sorted(run.removable) == [f"version-{number}" for number in range(1, STEPS)]


def test_a_gate_that_never_opens_says_what_it_waited_for(tmp_path: Path) -> None:
    run = stream_run(tmp_path, policy={"phi": 1.0}, limits={"gate_s": 3, "reload_s": 1})
    with pytest.raises(Exception, match=r"limits\.gate_s") as raised:
        run.train(publishes=False)
    decision = decide(raised.value, failures=1, limit=3)
    assert not decision.retry
    assert type(decision.error) is WaitTimeout
    # Any of the blocks in flight behind the gate may be the first to give up.
    assert re.search(
        r"waited 3 s at the gate with row (2[4-9]|3\d); version 0 \(step 0\) admits rows below 24", str(decision.error)
    )
    # What each actor was at, as far as the board has heard.
    assert re.search(
        r"trainer, last heard of: attempt 1 began at step 0 \d+ s ago; samplers, last heard of: sampler-\w+\.\w+ \d s ago; "
        r"at the gate: sampler-\w+\.\w+ with row \d+ for 3 s",
        str(decision.error),
    )


def test_a_broken_verifier_ends_the_run_and_names_the_row(tmp_path: Path) -> None:
    run = stream_run(tmp_path, policy={"phi": 1.0}, task={"name": "tests.tiny.broken:BrokenTask"})
    with pytest.raises(Exception, match=r"row 1\+1") as raised:
        run.train()
    decision = decide(raised.value, failures=1, limit=3)
    assert not decision.retry
    assert type(decision.error) is VerifierError
    assert str(decision.error) == "task broken, row 1+1: LookupError: no table for this sum"


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


@contextmanager
def beside(function: Callable[[], None]) -> Iterator[None]:
    """Runs `function` beside the body; its exception ends the test."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(function)
        yield
        running.result()
