"""The evaluator follows the board through what is spoilt or drops away under it; its engine is a fake."""

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.engine.vllm_engine import Completion, Draw
from orpo_ray.evaluation.evaluator import Evaluator, EvaluatorSpec
from orpo_ray.tasks.split_of import split_of
from orpo_ray.weights import Version
from orpo_ray.weights.published import IncompleteVersionError, publish_directory
from tests.tiny.models import make_model
from tests.tiny.runs import tiny_config


class WeighedEngine:
    """A fake engine: of the sums it answers as many rightly as its weights file says."""

    dead = False

    def __init__(self, initial: str) -> None:
        self.right = 0
        self.loads: list[str] = []
        self.before_loading: Callable[[str], None] = lambda directory: None
        self.before_answering: Callable[[], None] = lambda: None

    async def reload(self, directory: str, label: str, timeout_s: float) -> None:
        self.before_loading(directory)
        self.right = int((Path(directory) / "model.safetensors").read_text())
        self.loads.append(Path(directory).name)

    async def sample_all(self, prompts: Sequence[Sequence[int]], draws: Sequence[Draw]) -> list[list[Completion]]:
        self.before_answering()
        return [
            [Completion([5, 2], self.answers[at] if at < self.right else "no idea", False, 0.0, None)] * draws[at].k
            for at in range(len(prompts))
        ]

    answers: Sequence[str] = ()


class EvaluatorOnFakeEngine(Evaluator):
    """The evaluator as it is, but for its engine."""

    def __init__(self, spec: EvaluatorSpec) -> None:
        super().__init__(spec)
        self.fake = WeighedEngine(spec.initial)
        task = next(iter(spec.tasks.values()))
        self.fake.answers = [f"the answer is {task.gold(row)}" for row in task.rows()]

    async def _started(self) -> Any:
        if self._engine is None:
            fake: Any = self.fake
            self._engine, self._loaded = fake, self._spec.initial
        return self._engine


class QueueBoard:
    """Hands out versions as the board does, each until it is done; `kept` is what the evaluator said it needs on."""

    def __init__(self, *versions: Version) -> None:
        self.queue, self.kept = list(versions), [[]]

    def __getattr__(self, method: str) -> Any:
        class Call:
            remote = getattr(type(self), "_" + method).__get__(self)

        return Call()

    async def _next_evaluation(self) -> Version | None:
        return self.queue[0] if self.queue else None

    async def _evaluated(self, version: Version, keep: list[str]) -> None:
        self.queue.remove(version)
        self.kept.append([Path(path).name for path in keep])


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture
def evaluator(tmp_path: Path, student: Path) -> EvaluatorOnFakeEngine:
    config = tiny_config(tmp_path, student, export={"select": "best"}, task={"train_size": 12, "validation_size": 8})
    tasks = {split: split_of(config.task, split, config.seed) for split in ("validation",)}
    return EvaluatorOnFakeEngine(
        EvaluatorSpec(config, tasks, {"validation": "greedy"}, str(student), tmp_path / "evaluations")
    )


def publish(weights: Path, number: int, right: int) -> Version:
    directory = weights / f"v{number}"
    publish_directory(
        directory, lambda path: (path / "model.safetensors").write_text(str(right)) and None, {"number": number}
    )
    return Version(number, str(directory), step=number, epoch=number)


def found(evaluator: EvaluatorOnFakeEngine) -> dict[int, int]:
    """Right answers by epoch, as the files tell."""
    files = [json.loads(file.read_text()) for file in sorted(evaluator._spec.output.glob("*.json"))]
    return {file["epoch"]: file["correct"] for file in files}


def test_it_evaluates_what_the_board_hands_out_and_keeps_the_best(
    evaluator: EvaluatorOnFakeEngine, tmp_path: Path, student: Path
) -> None:
    initial = Version(0, str(student), step=0, epoch=0)
    board = QueueBoard(initial, *(publish(tmp_path, number, right) for number, right in ((1, 2), (2, 5), (3, 4))))
    assert asyncio.run(evaluator.follow(board)) == 4
    assert found(evaluator) == {0: 0, 1: 2, 2: 5, 3: 4}
    assert board.kept[1:] == [[], ["v1"], ["v2"], ["v2"]]


def test_what_is_evaluated_is_found_by_the_next_life(
    evaluator: EvaluatorOnFakeEngine, tmp_path: Path, student: Path
) -> None:
    versions = [publish(tmp_path, number, number) for number in (1, 2)]
    asyncio.run(evaluator.follow(QueueBoard(versions[0])))
    again = EvaluatorOnFakeEngine(evaluator._spec)
    board = QueueBoard(*versions)
    asyncio.run(again.follow(board))
    assert again.fake.loads == ["v2"]
    assert board.kept[1:] == [["v1"], ["v2"]]
    assert found(again) == {1: 1, 2: 2}


def test_what_was_evaluated_in_another_way_is_evaluated_anew(evaluator: EvaluatorOnFakeEngine, tmp_path: Path) -> None:
    version = publish(tmp_path, 1, 3)
    asyncio.run(evaluator.follow(QueueBoard(version)))
    again = EvaluatorOnFakeEngine(replace(evaluator._spec, keys={"validation": "at a temperature"}))
    asyncio.run(again.follow(QueueBoard(version)))
    assert again.fake.loads == ["v1"]
    (file,) = evaluator._spec.output.glob("*.json")
    assert json.loads(file.read_text())["key"] == "at a temperature"


def test_a_truncated_version_is_not_loaded_and_the_next_one_is(
    evaluator: EvaluatorOnFakeEngine, tmp_path: Path
) -> None:
    broken, whole = publish(tmp_path, 1, 10), publish(tmp_path, 2, 3)
    (Path(broken.path) / "model.safetensors").write_text("1")
    assert asyncio.run(evaluator.follow(QueueBoard(broken, whole))) == 1
    assert evaluator.fake.loads == ["v2"]
    assert found(evaluator) == {2: 3}


def test_a_version_that_an_attempt_drops_while_it_is_loaded_is_left(
    evaluator: EvaluatorOnFakeEngine, tmp_path: Path
) -> None:
    dead, alive = publish(tmp_path, 1, 8), publish(tmp_path, 2, 3)
    evaluator.fake.before_loading = lambda directory: shutil.rmtree(dead.path, ignore_errors=True)
    assert asyncio.run(evaluator.follow(QueueBoard(dead, alive))) == 1
    assert found(evaluator) == {2: 3}


def test_a_version_that_goes_while_it_is_evaluated_leaves_no_evaluation(
    evaluator: EvaluatorOnFakeEngine, tmp_path: Path
) -> None:
    """Its epoch will be trained again, and the file would say that it is evaluated, and best."""
    dead = publish(tmp_path, 1, 8)
    evaluator.fake.before_answering = lambda: shutil.rmtree(dead.path)
    with pytest.raises(IncompleteVersionError):
        asyncio.run(evaluator.evaluate(dead))
    assert found(evaluator) == {}


def test_after_a_reload_that_failed_no_weights_are_taken_for_loaded(
    evaluator: EvaluatorOnFakeEngine, tmp_path: Path, student: Path
) -> None:
    version = publish(tmp_path, 1, 4)

    def fail(directory: str) -> None:
        evaluator.fake.before_loading = lambda directory: None
        raise OSError("the storage is away")

    async def scene() -> None:
        evaluator.fake.before_loading = fail
        with pytest.raises(OSError, match="away"):
            await evaluator.evaluate(version)
        await evaluator.evaluate(version)

    asyncio.run(scene())
    assert evaluator.fake.loads == ["v1"]
    assert found(evaluator) == {1: 4}


def test_it_says_what_it_is_at(evaluator: EvaluatorOnFakeEngine, tmp_path: Path) -> None:
    said: list[str] = []
    evaluator.fake.before_answering = lambda: said.append(evaluator._at)
    asyncio.run(evaluator.evaluate(publish(tmp_path, 3, 1)))
    assert said == ["answering the validation split with version 3"]
    assert asyncio.run(evaluator.doing()) == "it is idle since 0 s"


def test_several_answers_of_the_first_student_and_the_last(tmp_path: Path, student: Path) -> None:
    config = tiny_config(tmp_path, student, eval={"k": 4})
    tasks = {"test": split_of(config.task, "test", config.seed)}
    evaluator = EvaluatorOnFakeEngine(
        EvaluatorSpec(config, tasks, {"test": "k=4"}, str(student), tmp_path / "evaluations")
    )
    versions = [publish(tmp_path, number, right) for number, right in ((1, 2), (2, 6))]
    asyncio.run(evaluator.follow(QueueBoard(Version(0, str(student), step=0, epoch=0), *versions)))
    files = [json.loads(file.read_text()) for file in sorted((tmp_path / "evaluations").glob("*.json"))]
    told = [{name: value for name, value in file.items() if "@" in name} for file in files]
    nothing, everything = dict.fromkeys(("pass@1", "pass@2", "pass@4", "majority@4"), 0), 6 / 8
    assert told == [nothing, {}, dict.fromkeys(nothing, everything)]
    rows = [row.id for row in tasks["test"].rows()]
    assert [file["right"] for file in files] == [[], rows[:2], rows[:6]]
    assert (
        sum(
            line.startswith(' "right": [')
            for line in (tmp_path / "evaluations/epoch-002-test.json").read_text().splitlines()
        )
        == 1
    )
