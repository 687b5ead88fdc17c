"""Phases under faults: real train workers, board and actors; samplers and evaluator on fake engines.

The run mends itself where a process died, and ends with one clear error where a verifier broke.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from orpo_ray.errors import EvaluatorLostError, OrpoRayError, VerifierError, WaitTimeout
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.distill import Distill
from orpo_ray.phases.evaluate import Evaluate
from orpo_ray.phases.evaluator_actor import begin, running_evaluator
from orpo_ray.phases.seed import Seed
from orpo_ray.training.checkpoint import newest_checkpoint
from orpo_ray.training.ledger import read_ledger
from orpo_ray.weights import StalenessGate, Version
from orpo_ray.weights.board import AttemptStart, WeightBoard
from orpo_ray.weights.published import publish_directory
from tests.tiny.fake_engine import (
    Deaths,
    FakeEngineSampler,
    FakeEngineSpec,
    FakeInitialSampler,
    MortalEvaluator,
    MortalEvaluatorSpec,
    MortalInitialSampler,
    MortalInitialSpec,
    read_calls,
    write_sums,
)
from tests.tiny.models import make_model
from tests.tiny.processes import session_processes
from tests.tiny.runs import context_of, teach_by_hand, tiny_config

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(900)]

PROMPTS, STEPS, ROWS = 20, 6, 48


class FollowingEvaluator:
    """Takes what the board hands out, and evaluates nothing."""

    async def follow(self, board: Any) -> int:
        done = 0
        while (version := await board.next_evaluation.remote()) is not None:
            await board.evaluated.remote(version, [])
            done += 1
        return done

    async def evaluate(self, version: Any) -> None:
        """What SEED asks of it for the initial student."""


def evaluator_that_only_follows(_: RunContext) -> Any:
    return ray.remote(num_cpus=0)(FollowingEvaluator).remote()


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture
def fake_engines(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orpo_ray.sampling.stream import pair_stream

    place = "orpo_ray.phases.distill"
    spec = partial(FakeEngineSpec, calls=tmp_path / "calls.jsonl", seconds=0.05)
    monkeypatch.setattr(f"{place}.SamplerSpec", spec)
    monkeypatch.setattr(f"{place}.pair_stream", partial(pair_stream, sampler=FakeEngineSampler))
    monkeypatch.setattr(f"{place}.running_evaluator", evaluator_that_only_follows)


def context_in(storage: Path, student: Path, **sections: Any) -> RunContext:
    context = context_of(tiny_config(storage, student, **sections))
    write_sums(context.layout.pairs, PROMPTS)
    context.results["SEED"] = {}
    return context


def notes(context: RunContext) -> list[str]:
    return [facts["text"] for kind, facts in context.live["said"] if kind == "note"]


@pytest.mark.usefixtures("fake_engines")
def test_a_killed_train_worker_is_made_up_for(tmp_path: Path, student: Path) -> None:
    context = context_in(tmp_path, student, policy={"phi": 1.0}, train={"checkpoint_every": 1, "zero_stage": 1})

    def kill() -> None:
        wait_for(lambda: newest_checkpoint(context.layout.checkpoints) is not None)
        session_processes("RayTrainWorker")[-1].kill()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        result = Distill().run(context)
        killing.result()
    assert result["attempts"] == 2
    mended, resumed = notes(context)
    assert mended.endswith("; attempt 2 starts from the last checkpoint")
    assert resumed.startswith("going on from step ")
    assert sorted(line["row"] for line in read_ledger(context.layout.ledger)) == list(range(ROWS))
    assert {line["attempt"] for line in read_ledger(context.layout.ledger)} == {1, 2}


@pytest.mark.usefixtures("fake_engines")
def test_a_killed_weight_board_is_made_up_for(tmp_path: Path, student: Path) -> None:
    """Samplers wait at its gate, the evaluator for its queue: both go on with the board that is started instead."""
    context = context_in(
        tmp_path, student, policy={"phi": 1.0, "refresh": 1}, train={"checkpoint_every": 1, "zero_stage": 1}
    )

    def kill() -> None:
        wait_for(lambda: newest_checkpoint(context.layout.checkpoints) is not None)
        [board] = session_processes("WeightBoard")
        board.kill()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        result = Distill().run(context)
        killing.result()
    assert result["attempts"] == 2
    mended, resumed = notes(context)
    assert mended.endswith("; attempt 2 starts from the last checkpoint")
    assert resumed.startswith("going on from step ")
    assert sorted(line["row"] for line in read_ledger(context.layout.ledger)) == list(range(ROWS))
    # Epochs 0 to 2, handed out once more by the second board.
    assert ray.get(context.live["following"], timeout=60) >= 3


@pytest.mark.usefixtures("fake_engines")
def test_a_sampler_that_is_heard_of_no_more_is_done_without(tmp_path: Path, student: Path) -> None:
    """As where its node is gone: the only one, so that nobody waits behind it at the gate."""
    context = context_in(
        tmp_path, student, policy={"phi": 1.0}, train={"checkpoint_every": 1, "zero_stage": 1}, limits={"place_s": 8}
    )

    def stop() -> None:
        wait_for(lambda: newest_checkpoint(context.layout.checkpoints) is not None)
        for sampler in session_processes("FakeEngineSampler"):
            sampler.suspend()

    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop)
        result = Distill().run(context)
        stopping.result()
    assert result["attempts"] == 2
    mended, resumed = notes(context)
    assert mended.startswith("the worker group failed (limits.place_s: nothing has been heard of sampler-")
    assert mended.endswith("; attempt 2 starts from the last checkpoint")
    assert resumed.startswith("going on from step ")
    [fault] = [facts for kind, facts in context.live["said"] if kind == "fault"]
    assert "samplers, last heard of: sampler-" in fault["actors"]
    assert sorted(line["row"] for line in read_ledger(context.layout.ledger)) == list(range(ROWS))


@pytest.mark.usefixtures("fake_engines")
def test_a_published_version_that_is_cut_off_is_trained_again(tmp_path: Path, student: Path) -> None:
    """The last one, which no sampler loads; its checkpoint is passed over for the one before."""
    context = context_in(tmp_path, student, policy={"phi": 0.0}, train={"checkpoint_every": 1, "zero_stage": 1})
    first = Distill().run(context)
    weights = Path(first["weights"]) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert not Distill().still_there(context, first)
    again = Distill().run(context)
    assert Distill().still_there(context, again)
    assert again["weights"] != first["weights"]
    assert notes(context)[0].startswith("checkpoint step-000006 is passed over: its version is not whole")
    assert sorted(line["row"] for line in read_ledger(context.layout.ledger)) == list(range(ROWS))


@pytest.mark.usefixtures("fake_engines")
def test_a_verifier_that_breaks_is_raised_as_it_is_and_never_tried_again(tmp_path: Path, student: Path) -> None:
    broken = {"name": "tests.tiny.broken:BrokenTask"}
    context = context_in(tmp_path, student, policy={"phi": 1.0}, task=broken)
    with pytest.raises(VerifierError) as raised:
        Distill().run(context)
    assert type(raised.value) is VerifierError
    assert str(raised.value) == "task broken, row 1+1: LookupError: no table for this sum"
    assert notes(context) == []


def test_seed_raises_a_broken_verifier_as_it_is(tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpo_ray.phases.seed.InitialSampler", FakeInitialSampler)
    monkeypatch.setattr("orpo_ray.phases.seed.running_evaluator", evaluator_that_only_follows)
    context = context_of(tiny_config(tmp_path, student, task={"name": "tests.tiny.broken:BrokenTask"}))
    teach_by_hand(context)
    with pytest.raises(VerifierError) as raised:
        Seed().run(context)
    assert type(raised.value) is VerifierError
    assert str(raised.value) == "task broken, row 1+1: LookupError: no table for this sum"


def mortal(monkeypatch: pytest.MonkeyPatch, phase: str, deaths: Deaths) -> None:
    """SEED's samplers, or the evaluator, on engines that die."""
    fakes: dict[str, tuple[str, dict[str, Any]]] = {
        "SEED": (
            "orpo_ray.phases.seed",
            {
                "InitialSampler": MortalInitialSampler,
                "InitialSpec": partial(MortalInitialSpec, deaths=deaths),
                "running_evaluator": evaluator_that_only_follows,
            },
        ),
        "EVALUATE": (
            "orpo_ray.phases.evaluator_actor",
            {"Evaluator": MortalEvaluator, "EvaluatorSpec": partial(MortalEvaluatorSpec, deaths=deaths)},
        ),
    }
    module, replaced = fakes[phase]
    for name, fake in replaced.items():
        monkeypatch.setattr(f"{module}.{name}", fake)


BOTH = pytest.mark.parametrize("engine", [False, True], ids=["its process", "its engine's"])


@BOTH
def test_seeds_sampler_dies_and_what_is_missing_is_sampled(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch, engine: bool
) -> None:
    mortal(monkeypatch, "SEED", Deaths(tmp_path / "calls.jsonl", lives=2, engine=engine))
    context = context_of(tiny_config(tmp_path, student))
    teach_by_hand(context)
    result = Seed().run(context)
    assert (result["prompts"], result["wrong"]) == (18, 54)
    assert lives(tmp_path) == 3
    assert notes(context) == [], "Ray itself made up for it"


def test_a_sampler_of_seed_that_stands_still_is_done_without(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal(monkeypatch, "SEED", Deaths(tmp_path / "calls.jsonl", lives=1, hangs=True))
    context = context_of(tiny_config(tmp_path, student, limits={"start_s": 40, "generate_s": 5}))
    teach_by_hand(context)
    result = Seed().run(context)
    assert (result["prompts"], result["wrong"]) == (18, 54)
    note = (
        "sampling the initial student failed (limits.start_s and generate_s: the samplers have finished no block for 45 s, "
        "after 0 of them; one is gone, or hangs); what is missing is sampled again"
    )
    # Ray may be first to take the stopped process for dead, and start the actor again by itself.
    assert notes(context) in ([note], [])


def test_a_sampler_of_seed_that_always_dies_ends_the_run(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal(monkeypatch, "SEED", Deaths(tmp_path / "calls.jsonl", lives=99))
    context = context_of(tiny_config(tmp_path, student, limits={"failures": 1}))
    teach_by_hand(context)
    with pytest.raises(OrpoRayError, match=r"^sampling the initial student failed 2 times") as raised:
        Seed().run(context)
    assert type(raised.value) is OrpoRayError
    assert raised.value.exit_code == 1
    assert lives(tmp_path) == 4, "two actors, each started again once"
    [note] = notes(context)
    assert note.endswith("what is missing is sampled again")


@BOTH
def test_the_evaluator_dies_and_goes_on(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch, engine: bool
) -> None:
    mortal(monkeypatch, "EVALUATE", Deaths(tmp_path / "calls.jsonl", lives=2, engine=engine))
    context = context_of(tiny_config(tmp_path, student))
    [evaluation] = Evaluate().run(context)["evaluations"]
    assert (evaluation["epoch"], evaluation["correct"], evaluation["total"]) == (0, 0, 8)
    assert lives(tmp_path) == 3
    assert notes(context) == []


def test_the_evaluator_dies_beside_training(tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows the board again where it was, and a version that waited for it is still there."""
    mortal(monkeypatch, "EVALUATE", Deaths(tmp_path / "calls.jsonl", lives=2))
    context = context_of(tiny_config(tmp_path, student))
    directory = context.layout.weights / "v000001-a001"
    facts = {"number": 1, "step": 3, "epoch": 1}
    publish_directory(directory, lambda path: write_model_of(student, path), facts)
    initial = Version(0, str(student), step=0, epoch=0)
    gate = StalenessGate(context.config.geometry(PROMPTS), 0)
    board: Any = ray.remote(num_cpus=0)(WeightBoard).remote(initial, gate)
    following = running_evaluator(context).follow.remote(board)
    begin(context, "following", following)
    ray.get(board.start_attempt.remote(AttemptStart(1, 0, None), initial, []))
    published = Version(1, str(directory), step=3, epoch=1)
    assert ray.get(board.publish.remote(1, published)) == []
    ray.get(board.finish.remote())
    assert [item["epoch"] for item in Evaluate().run(context)["evaluations"]] == [0, 1]
    assert lives(tmp_path) == 3


def test_an_evaluator_that_always_dies_is_said_at_once_and_ends_the_run_in_evaluate(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal(monkeypatch, "EVALUATE", Deaths(tmp_path / "calls.jsonl", lives=99))
    context = context_of(tiny_config(tmp_path, student, limits={"failures": 1}))
    initial = Version(0, str(student), step=0, epoch=0)
    begin(context, "following", running_evaluator(context).evaluate.remote(initial))
    wait_for(lambda: bool(notes(context)))
    died = "the evaluator died more often than limits.failures (1) allows; the last time: "
    [note] = notes(context)
    assert note.startswith(died)
    assert note.endswith("; training goes on, EVALUATE comes back to it")
    with pytest.raises(EvaluatorLostError) as raised:
        Evaluate().run(context)
    assert str(raised.value).startswith(died)
    assert lives(tmp_path) == 2
    assert "evaluator" not in context.live


def test_an_evaluator_that_is_not_done_in_time_says_what_it_is_at(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal(monkeypatch, "EVALUATE", Deaths(tmp_path / "calls.jsonl", lives=0))
    context = context_of(tiny_config(tmp_path, student, limits={"evaluate_s": 2}))
    initial = Version(0, str(student), step=0, epoch=0)
    gate = StalenessGate(context.config.geometry(PROMPTS), 0)
    board: Any = ray.remote(num_cpus=0)(WeightBoard).remote(initial, gate)  # an attempt never begins
    begin(context, "following", running_evaluator(context).follow.remote(board))
    with pytest.raises(
        WaitTimeout, match=r"limits\.evaluate_s: the evaluator was not done within 2 s; it is idle since"
    ):
        Evaluate().run(context)


def lives(directory: Path) -> int:
    return len({call["pid"] for call in read_calls(directory / "calls.jsonl")})


def write_model_of(template: Path, directory: Path) -> None:
    for file in template.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.05)
