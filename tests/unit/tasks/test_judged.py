"""A judge behind a real HTTP API that answers from a script: marks, votes, the cache, and how it fails."""

import json
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import parse_config
from orpo_ray.config.judge import JudgeConfig
from orpo_ray.config.place import TaskConfig
from orpo_ray.errors import ConfigError, DataError, InputError, VerifierError
from orpo_ray.tasks import Row, Task, Verdict
from orpo_ray.tasks.agreement import Agreement, check_agreement
from orpo_ray.tasks.judged import JudgedTask
from orpo_ray.tasks.split_of import split_of
from tests.tiny.api import FakeApi, Refusal, fake_api
from tests.unit.config.data import changed


def says(body: dict[str, Any]) -> list[tuple[str, str]] | Refusal:
    """Right where the answer names Paris; odd seeds see it the other way round where the answer is unsure."""
    answer = body["messages"][0]["content"].partition("Answer to mark:\n")[2].partition("\n\nSay in a sentence")[0]
    if "refuse" in answer:
        return Refusal(400, "no")
    if "repeat" in answer:
        return Refusal(401, "Incorrect API key provided: sk-planted-77")
    if "ramble" in answer:
        return [("I could go on about this. MARK: perhaps", "length")]
    right = "Paris" in answer
    if "unsure" in answer and body["seed"] % 2:
        right = not right
    return [
        (
            f"MARK: WRONG would be the first thought, but see the rubric.\n\nMARK: {'RIGHT' if right else 'WRONG'}",
            "stop",
        )
    ]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api(says) as served:
        yield served


@pytest.fixture
def task(tmp_path: Path, api: FakeApi) -> Callable[..., Task]:
    rows = tmp_path / "rows.jsonl"
    questions = [{"question": f"What is the capital of France? ({n})", "reference": "Paris"} for n in range(4)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in questions))

    def make(**judge: Any) -> Task:
        config = TaskConfig(
            name="open_ended", path=str(rows), train_size=2, test_size=2,
            judge=judge_of(api, tmp_path, **judge),
        )  # fmt: skip
        return split_of(config, "train", 0)

    return make


def judge_of(api: FakeApi, tmp_path: Path, **options: Any) -> JudgeConfig:
    known = {"base_url": api.base_url, "model": "judge", "cache": str(tmp_path / "marks"), "retries": 0}
    return JudgeConfig.model_validate(known | options)


def test_the_judge_sees_question_reference_and_rubric_and_its_last_mark_counts(
    task: Callable[..., Task], api: FakeApi
) -> None:
    judged = task(rubric="Name the city.")
    row = judged.rows()[0]
    assert judged.classify(row, "It is Paris.") is Verdict.RIGHT
    assert judged.classify(row, "It is Lyon.") is Verdict.WRONG
    assert judged.classify(row, "  ") is Verdict.UNPARSED, "nothing said is nothing to mark"
    assert len(api.requests) == 2
    asked = api.requests[0]["messages"][0]["content"]
    for part in ("Name the city.", "What is the capital of France?", "Reference:\nParis", "It is Paris."):
        assert part in asked
    assert api.requests[0]["temperature"] == 0


def test_a_mark_is_asked_for_once_by_whoever_asks(task: Callable[..., Task], api: FakeApi) -> None:
    judged = task()
    row = judged.rows()[0]
    first = judged.classify_all([(row, "Paris"), (row, "Lyon"), (row, "Paris, France")])
    assert first == [Verdict.RIGHT, Verdict.WRONG, Verdict.RIGHT]
    again = pickle.loads(pickle.dumps(judged))
    assert again.classify_all([(row, "Paris"), (row, "Lyon")]) == first[:2]
    assert len(api.requests) == 3
    assert task(rubric="Another.").classify(row, "Paris") is Verdict.RIGHT
    assert len(api.requests) == 4, "another rubric, another mark"


def test_the_majority_of_votes_counts(task: Callable[..., Task], api: FakeApi) -> None:
    """Votes 0, 1, 2 have these seeds; the second differs."""
    judged = task(votes=3, temperature=0.7)
    assert judged.classify(judged.rows()[0], "unsure, but Paris") is Verdict.RIGHT
    assert [body["seed"] for body in api.requests] == [0, 1, 2]


@pytest.mark.parametrize(
    ("answer", "message"),
    [("refuse", r"task open_ended, row .*: the judge judge at http.* failed: .*no"),
     ("ramble", r"task open_ended, row .*: the judge judge ended without a mark \('I could go on.*perhaps'\)")],
)  # fmt: skip
def test_a_judge_that_fails_is_an_error_and_never_a_wrong_answer(
    task: Callable[..., Task], answer: str, message: str
) -> None:
    judged = task()
    with pytest.raises(VerifierError, match=message):
        judged.classify_all([(judged.rows()[0], "Paris"), (judged.rows()[0], answer)])


def test_a_key_that_is_not_there(task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    judged = task(api_key_env="JUDGE_KEY")
    with pytest.raises(VerifierError, match=r"task\.judge\.api_key_env: the environment variable JUDGE_KEY is not set"):
        judged.classify(judged.rows()[0], "Paris")


def test_a_judge_that_repeats_the_key_does_not_have_it_logged(
    task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-planted-77")
    judged = task(api_key_env="JUDGE_KEY")
    with pytest.raises(VerifierError, match=r"provided: \*\*\*") as error:
        judged.classify(judged.rows()[0], "repeat it")
    assert "sk-planted-77" not in "".join(traceback.format_exception(error.value))


def test_agreement_with_people() -> None:
    """20 both right, 15 both wrong, 5 and 10 apart: the textbook's κ = 0.4."""
    agreement = Agreement(both_right=20, both_wrong=15, judge_alone=10, people_alone=5)
    assert (agreement.total, agreement.share) == (50, 0.7)
    assert agreement.kappa == pytest.approx(0.4)
    assert Agreement(both_right=10).kappa == 0.0


def test_a_judge_that_disagrees_with_people_is_refused(tmp_path: Path, api: FakeApi) -> None:
    file = tmp_path / "labelled.jsonl"
    marks = [("Paris", True), ("Lyon", False), ("Paris, I think", True), ("Paris, in Texas", False)]
    lines = [{"question": "What is the capital of France?", "answer": a, "right": right} for a, right in marks]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    agreement = check_agreement(judge_of(api, tmp_path, labelled=str(file), min_agreement=0.75))
    assert agreement == Agreement(both_right=2, both_wrong=1, judge_alone=1)
    assert agreement.to_json()["agreement"] == 0.75
    with pytest.raises(
        InputError, match=r"marks 75\.0% of 4 labelled answers as people did \(κ 0\.50; it alone says right 1"
    ):
        check_agreement(judge_of(api, tmp_path, labelled=str(file)))
    assert check_agreement(judge_of(api, tmp_path)) is None
    file.write_text(json.dumps(lines[0] | {"right": "yes"}))
    with pytest.raises(DataError, match=r"labelled\.jsonl:1: field 'right' must be true or false, not 'yes'"):
        check_agreement(judge_of(api, tmp_path, labelled=str(file)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.name": "open_ended", "task.path": "x.jsonl"}, "task.judge: not set, but no rule can verify"),
        ({"task.judge": {"base_url": "u", "model": "m", "votes": 2}}, "votes is 2, which may end in a tie"),
        ({"task.judge": {"base_url": "u", "model": "m", "votes": 3}}, "votes is 3 at temperature 0"),
        ({"task.judge": {"base_url": "u"}}, "task.judge.model: missing, and it has no default"),
    ],
)
def test_what_is_wrong_with_a_judge(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(changed(changes))
    assert message in str(refused.value)


def test_gold_may_be_a_rule_tasks_own() -> None:
    """Any task can be judged: the judge then stands in for its rule."""
    config = TaskConfig(name="arithmetic", train_size=1, judge=JudgeConfig(base_url="http://127.0.0.1:9/v1", model="m"))
    judged = split_of(config, "train", 0)
    assert isinstance(judged, JudgedTask)
    row = judged.rows()[0]
    assert judged.gold(row) == row.data["answer"]
    assert isinstance(row, Row)
