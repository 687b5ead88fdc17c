"""The caller asks for whole blocks, with seeds that depend on run and prompt alone."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from orpo_ray.config.models import TeacherConfig
from orpo_ray.teacher.access import TeacherAccess
from orpo_ray.teacher.caller import BLOCK_PROMPTS, BLOCKS, Asking, TeacherCaller
from tests.tiny.api import fake_api
from tests.tiny.sums import SumsTask

TASK = SumsTask(sizes={"train": None})


def asking(run_seed: int = 0) -> Asking:
    return Asking(TASK, k=2, temperature=0.8, top_p=1.0, max_tokens=16, run_seed=run_seed)


def call(access: TeacherAccess, *blocks: int, run_seed: int = 0) -> list[dict[str, Any]]:
    async def all_blocks() -> list[dict[str, Any]]:
        caller = TeacherCaller([asking(run_seed)], access, clients=1)
        lines = pa.table([[0] * len(blocks), list(blocks)], schema=BLOCKS)
        return [line async for table in caller(lines) for line in table.to_pylist()]

    return asyncio.run(all_blocks())


def test_a_hundred_prompts_are_six_blocks_and_a_rest() -> None:
    assert asking().blocks == 7
    assert [len(asking().rows(block)) for block in range(7)] == [BLOCK_PROMPTS] * 6 + [4]


def test_each_prompt_of_a_block_comes_out_at_its_position() -> None:
    with fake_api(lambda body: [(body["messages"][0]["content"], "stop"), ("cut", "length")]) as api:
        access = TeacherAccess(TeacherConfig(backend="openai"), TASK, api.base_url, "m", "none")
        lines = call(access, 6, 1)
    assert [line["block"] for line in lines] == [6] * 4 + [1] * 16
    assert [line["position"] for line in lines] == [*range(96, 100), *range(16, 32)]
    for line in lines:
        assert line["texts"] == [TASK.prompt(TASK.rows()[line["position"]]), "cut"]
        assert line["truncated"] == [False, True]


def test_a_prompts_seed_does_not_depend_on_the_order_but_on_the_run() -> None:
    def seeds(*blocks: int, run_seed: int = 0) -> dict[str, int]:
        with fake_api(lambda body: [("x", "stop")] * body["n"]) as api:
            access = TeacherAccess(TeacherConfig(backend="openai"), TASK, api.base_url, "m", "none")
            call(access, *blocks, run_seed=run_seed)
        return {body["messages"][0]["content"]: body["seed"] for body in api.requests}

    forth, back, other = seeds(0, 1), seeds(1, 0), seeds(0, 1, run_seed=1)
    assert forth == back
    assert len(set(forth.values())) == 32
    assert all(0 <= seed < 2**31 for seed in forth.values())
    assert not set(forth.values()) & set(other.values())


def test_a_prompt_without_a_recorded_trace_keeps_its_line(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(json.dumps({"prompt_id": TASK.rows()[97].id, "text": "so it is"}) + "\n")
    lines = call(TeacherAccess(TeacherConfig(backend="recorded", path=str(file)), TASK), 6)
    assert [line["texts"] for line in lines] == [[], ["so it is"], [], []]


def test_the_key_is_not_shown_where_access_is_printed() -> None:
    assert "secret" not in repr(TeacherAccess(TeacherConfig(), TASK, "url", "m", key="secret"))
