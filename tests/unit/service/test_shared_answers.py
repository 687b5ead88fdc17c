"""What several readers ask within a second is worked out once."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config.layout import RunLayout
from orpo_ray.report.browse import RunTraces
from orpo_ray.report.filters import Filters
from orpo_ray.service import runs as runs_module
from orpo_ray.service.runs import FRESH_S, Runs
from tests.unit.report.traced import write_traced_run
from tests.unit.service.fake_jobs import FakeJobs


@pytest.fixture
def worked_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of rows that were read, a call each."""
    kinds: list[str] = []
    rows = Runs._rows

    def counted(self: Runs, layout: Any, kind: Any, *rest: Any) -> Any:
        kinds.append(kind)
        return rows(self, layout, kind, *rest)

    monkeypatch.setattr(Runs, "_rows", counted)
    return kinds


def test_a_page_of_rows_that_many_ask_for(tmp_path: Path, worked_out: list[str]) -> None:
    name = write_traced_run(tmp_path).name
    now = [0.0]
    runs = Runs(tmp_path, FakeJobs(), clock=lambda: now[0])

    async def ask() -> None:
        same = [runs.rows(name, "pairs", Filters(), 0, 2) for _ in range(3)]
        answers = await asyncio.gather(*same, runs.rows(name, "pairs", Filters(verdict="wrong"), 0, 2))
        assert answers[0].items
        assert answers[0] == answers[1] == answers[2]
        now[0] = FRESH_S + 0.1
        await runs.rows(name, "pairs", Filters(), 0, 2)

    asyncio.run(ask())
    assert worked_out == ["pairs"] * 3


def test_what_takes_long_is_worked_out_more_seldom(tmp_path: Path) -> None:
    name = write_traced_run(tmp_path).name
    now, looked = [0.0], []
    runs = Runs(tmp_path, FakeJobs(), clock=lambda: now[0])

    async def takes_60_ms(name: str) -> Any:
        looked.append(now[0])
        now[0] += 0.06
        return name

    runs._detail = takes_60_ms  # type: ignore[method-assign, assignment]

    async def ask() -> None:
        for _ in range(100):
            await runs.detail(name)
            now[0] += 0.1

    asyncio.run(ask())
    # 2 % of the time: every 3 s.
    assert looked == pytest.approx([0, 3.06, 6.12, 9.18], abs=0.15)


def test_answers_that_are_old_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "_FRESH", 2)
    name = write_traced_run(tmp_path).name
    now = [0.0]
    runs = Runs(tmp_path, FakeJobs(), clock=lambda: now[0])

    async def ask() -> None:
        for place in range(10):
            now[0] += FRESH_S + 0.1
            await runs.rows(name, "traces", Filters(), place, 1)

    asyncio.run(ask())
    assert len(runs._fresh) <= 4


def test_a_tokenizer_that_two_ask_for_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_traced_run(tmp_path).name
    opened: list[str] = []
    open_run = RunTraces.open

    def slowly(layout: RunLayout) -> RunTraces:
        opened.append(layout.name)
        time.sleep(0.2)
        return open_run(layout)

    monkeypatch.setattr(runs_module.RunTraces, "open", slowly)
    runs = Runs(tmp_path, FakeJobs())

    async def ask() -> None:
        await asyncio.gather(*(runs.rows(name, "traces", Filters(), after, 1) for after in range(3)))

    asyncio.run(ask())
    assert opened == [name]
