"""TEACH on a real Ray cluster, with a scripted teacher behind a real HTTP API, or with recorded traces."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.errors import InputError, TeacherError, VerifierError, WaitTimeout
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.teach import Teach
from orpo_ray.phases.teach_all import TeachAll
from orpo_ray.tasks.split_of import split_of
from orpo_ray.teacher.caller import BLOCK_PROMPTS
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import TraceDraft, TraceStore
from tests.tiny.api import FakeApi, Refusal, Script, fake_api
from tests.tiny.runs import context_of, tiny_config
from tests.tiny.sums_api import sums_script

ROOT = Path(__file__).parents[2]
PROMPTS, TEST_PROMPTS, K = 80, 10, 4

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api(sums_script) as served:
        yield served


def context_for(storage: Path, base_url: str, **sections: Any) -> RunContext:
    defaults: dict[str, Any] = {
        "task": {"train_size": PROMPTS, "test_size": TEST_PROMPTS},
        "teacher": {"backend": "openai", "model": "sums", "base_url": base_url, "path": None, "retries": 0},
        "sampling": {"k": K},
    }
    merged = {
        name: {**defaults.get(name, {}), **sections.get(name, {})}
        if name in defaults or isinstance(sections[name], dict)
        else sections[name]
        for name in defaults.keys() | sections.keys()
    }
    return context_of(tiny_config(storage, Path("student"), **merged))


def store_of(result: dict[str, Any]) -> TraceStore:
    store = TraceStore.find(Path(result["path"]), result["key"])
    assert store is not None
    return store


def traces_of(result: dict[str, Any]) -> list[Trace]:
    return [trace for _, traces in store_of(result).prompts() for trace in traces]


def asked_for(requests: list[dict[str, Any]]) -> set[str]:
    """The questions that traces were asked for, those of the test split left out."""
    return {body["messages"][0]["content"] for body in requests if body["temperature"] > 0}


def questions(context: RunContext, blocks: set[int]) -> set[str]:
    task = split_of(context.config.task, "train", context.config.seed)
    return {task.prompt(row) for place, row in enumerate(task.rows()) if place // BLOCK_PROMPTS in blocks}


def slow_script(body: dict[str, Any]) -> list[tuple[str, str]]:
    time.sleep(0.1)
    return sums_script(body)


def test_every_prompt_gets_k_traces_verified_and_thinned(tmp_path: Path, api: FakeApi) -> None:
    context = context_for(tmp_path, api.base_url)
    result = Teach().run(context)
    traces = traces_of(result)
    rows = {row.id: row for row in split_of(context.config.task, "train", context.config.seed).rows()}
    assert (result["prompts"], result["traces"], len(traces)) == (PROMPTS, PROMPTS * K, PROMPTS * K)
    assert [trace.prompt_id for trace in traces] == [row for row in rows for _ in range(K)]
    assert [trace.sample for trace in traces] == list(range(K)) * PROMPTS
    # The verdict is on what the trace says, worked out here without the package.
    for trace in traces:
        right = int(trace.text.rpartition(" ")[2]) == sum(rows[trace.prompt_id].data.values())
        assert trace.verdict == ("right" if right else "wrong")
        assert not (trace.kept and trace.verdict == "wrong")
    # Of each wording of a prompt one right trace is kept: the others are the same text.
    kept = [(trace.prompt_id, trace.text) for trace in traces if trace.kept]
    assert sorted(kept) == sorted({(t.prompt_id, t.text) for t in traces if t.verdict == "right"})
    assert result["kept"] + result["near_duplicates"] == result["right"]
    assert result["accuracy"] == result["right"] / result["traces"]
    assert 0.6 < result["accuracy"] < 0.9
    assert result["test"] == {"correct": TEST_PROMPTS, "total": TEST_PROMPTS}
    assert {trace.model for trace in traces} == {"sums"}
    json.dumps(result)
    progress = [facts for kind, facts in context.live["said"] if kind == "teach.progress"]
    assert (progress[-1]["done"], progress[-1]["total"]) == (PROMPTS, PROMPTS)
    assert progress[-1]["traces_per_s"] > 0
    tested = [facts for kind, facts in context.live["said"] if kind == "teach.test"]
    assert (tested[-1]["done"], tested[-1]["right"]) == (TEST_PROMPTS, TEST_PROMPTS)


def test_finished_work_is_found_and_only_what_depends_on_a_change_is_redone(tmp_path: Path, api: FakeApi) -> None:
    first = Teach().run(context_for(tmp_path, api.base_url))
    asked = len(api.requests)
    again = context_for(tmp_path, api.base_url, policy={"phi": 0.25}, teacher={"concurrency": 2})
    assert Teach().key(again) == Teach().key(context_for(tmp_path, api.base_url))
    assert Teach().run(again) == first
    assert len(api.requests) == asked
    # More test prompts: the teacher is scored again, its traces stay.
    held_out = context_for(tmp_path, api.base_url, eval={"max_tokens": 20})
    assert Teach().key(held_out) != Teach().key(again)
    assert Teach().pairs_key(held_out) == Teach().pairs_key(again) == Teach().run(held_out)["key"] == first["key"]
    assert len(api.requests) == asked + TEST_PROMPTS
    more = Teach().run(context_for(tmp_path, api.base_url, sampling={"k": K + 1}))
    assert more["key"] != first["key"]
    assert more["traces"] == PROMPTS * (K + 1)
    assert Teach().still_there(again, first)


def test_the_same_seed_gives_the_same_traces_whatever_is_in_flight(tmp_path: Path) -> None:
    with fake_api(slow_script) as api:
        one = Teach().run(context_for(tmp_path / "one", api.base_url, teacher={"concurrency": 64}))
        assert BLOCK_PROMPTS < api.most_in_flight <= 64  # several blocks at once
    with fake_api(sums_script) as api:
        other = Teach().run(context_for(tmp_path / "other", api.base_url, teacher={"concurrency": 3}))
        assert api.most_in_flight <= 3
    assert traces_of(one) == traces_of(other)


def test_a_teacher_that_goes_down_is_named_and_what_it_said_is_kept(tmp_path: Path) -> None:
    up = 3 * BLOCK_PROMPTS
    script: list[Script] = [lambda body: Refusal(503, "going down") if len(api.requests) > up else sums_script(body)]
    with fake_api(lambda body: script[0](body)) as api:
        context = context_for(tmp_path, api.base_url, teacher={"concurrency": 2})
        with pytest.raises(TeacherError, match=rf"{api.base_url} answered 503 .*going down"):
            Teach().run(context)
        (partial,) = (tmp_path / "traces").glob("*.partial")
        kept = TraceDraft(partial.with_suffix("")).blocks()
        assert 0 < len(kept) < PROMPTS // BLOCK_PROMPTS
        time.sleep(2)  # the first start's actor ends with what it had in flight
        asked, script[0] = len(api.requests), sums_script
        result = Teach().run(context)
        left = set(range(PROMPTS // BLOCK_PROMPTS)) - kept
        assert asked_for(api.requests[asked:]) == questions(context, left)
        whole = Teach().run(context_for(tmp_path / "whole", api.base_url))
    assert traces_of(result) == traces_of(whole)


def test_a_teacher_that_says_nothing_more_is_waited_for_so_long(tmp_path: Path) -> None:
    over = threading.Event()

    def script(body: dict[str, Any]) -> list[tuple[str, str]]:
        if len(api.requests) > 2 * BLOCK_PROMPTS:
            over.wait(120)
        return sums_script(body)

    with fake_api(script) as api:
        context = context_for(tmp_path, api.base_url, teacher={"concurrency": 2}, limits={"teach_s": 25})
        try:
            with pytest.raises(WaitTimeout) as raised:
                Teach().run(context)
        finally:
            over.set()
        assert str(raised.value).startswith(
            "limits.teach_s: the teacher's clients have finished no block of prompts for 25 s"
        )
        result = Teach().run(context_for(tmp_path, api.base_url))
    assert len(traces_of(result)) == PROMPTS * K


def test_a_killed_run_goes_on_from_its_finished_blocks(tmp_path: Path) -> None:
    with fake_api(slow_script) as api:
        process = subprocess.Popen(
            [sys.executable, __file__, str(tmp_path), api.base_url],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        try:
            draft = None
            end = time.monotonic() + 120
            while time.monotonic() < end and (draft is None or len(draft.blocks()) < 2):
                assert process.poll() is None, "the run ended before it could be killed"
                found = list((tmp_path / "traces").glob("*.partial"))
                draft = TraceDraft(found[0].with_suffix("")) if found else None
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(3)  # its workers end when they miss it
        assert draft is not None
        kept, asked = draft.blocks(), len(api.requests)
        assert 2 <= len(kept) < PROMPTS // BLOCK_PROMPTS
        context = context_for(tmp_path, api.base_url, teacher={"concurrency": 16})
        result = Teach().run(context)
        left = set(range(PROMPTS // BLOCK_PROMPTS)) - kept
        assert asked_for(api.requests[asked:]) == questions(context, left)
    assert len({(trace.prompt_id, trace.sample) for trace in traces_of(result)}) == result["traces"] == PROMPTS * K


def test_a_teacher_that_is_never_right_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with fake_api(lambda body: [("I think the answer is 99", "stop"), ("It is", "length")] * 2) as api:
        context = context_for(tmp_path, api.base_url)
        with pytest.raises(InputError) as raised:
            Teach().run(context)
        asked = len(api.requests)
        with pytest.raises(InputError):  # found again, and refused again, without asking
            Teach().run(context)
        assert len(api.requests) == asked
    message = str(raised.value)
    assert "the teacher never answers right: of 320 traces of 80 prompts 0 are right, 160 wrong, 160 without" in message
    assert "[wrong] I think the answer is 99" in message
    assert "[unparsed, cut by max_tokens] It is" in message


def test_a_verifier_that_breaks_ends_the_phase_and_names_the_row(tmp_path: Path, api: FakeApi) -> None:
    context = context_for(tmp_path, api.base_url, task={"name": "tests.tiny.broken:BrokenTask"})
    with pytest.raises(VerifierError) as raised:
        Teach().run(context)
    assert "row 1+1: LookupError: no table for this sum" in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_recorded_traces_are_judged_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    lines = [
        {"prompt_id": "5+5", "text": "Five and five: the answer is 10"},
        {"prompt_id": "5+5", "text": "Five and five: the answer is 11"},
        {"prompt_id": "5+4", "text": "No idea."},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = Teach().run(context_for(tmp_path, "", teacher={"backend": "recorded", "path": str(file)}))
    assert (result["prompts"], result["prompts_without_kept"]) == (PROMPTS, PROMPTS - 1)
    assert (result["right"], result["wrong"], result["unparsed"], result["kept"]) == (1, 1, 1, 1)
    assert result["test"] is None


def test_gsm8k_teaches_by_its_own_solutions(tmp_path: Path) -> None:
    data = Path(os.environ.get("ORPO_RAY_SHARED_DATA", ROOT.parent / "shared" / "data")) / "gsm8k_train.jsonl"
    if not data.is_file():
        pytest.skip(f"{data} is not there: set ORPO_RAY_SHARED_DATA to the directory of the data sets")
    context = context_for(
        tmp_path,
        "",
        task={"name": "gsm8k", "path": str(data), "train_size": 400, "test_size": 50},
        teacher={"backend": "recorded", "path": "dataset"},
    )
    result = Teach().run(context)
    assert (result["traces"], result["right"], result["kept"]) == (400, 400, 400)
    assert not any("<<" in trace.text for trace in traces_of(result))


if __name__ == "__main__":  # the run that is killed
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    Teach().run(context_for(Path(sys.argv[1]), sys.argv[2], teacher={"concurrency": 2}))


def test_two_teachers_share_k_and_their_positives_are_told_apart(tmp_path: Path, api: FakeApi) -> None:
    other = {"backend": "openai", "model": "others", "base_url": api.base_url, "retries": 0, "weight": 3.0}
    context = context_for(tmp_path, api.base_url, sampling={"k": 8}, more_teachers=[other])
    result = TeachAll().run(context)
    assert (result["prompts"], result["traces"]) == (PROMPTS, PROMPTS * 8)
    first, second = result["teachers"]
    assert [(item["teacher"], item["k"], item["traces"]) for item in (first, second)] == [
        ("sums", 2, 2 * PROMPTS),
        ("others", 6, 6 * PROMPTS),
    ]
    traces = traces_of(result)
    assert first["positives"] == sum(trace.kept and trace.model == "sums" for trace in traces) > 0
    assert second["positives"] == sum(trace.kept and trace.model == "others" for trace in traces) > 0
    assert first["share_of_positives"] + second["share_of_positives"] == pytest.approx(1)
    asked = len(api.requests)
    assert TeachAll().run(context) == result
    assert len(api.requests) == asked
