"""Several teachers: K shared out, traces merged, each one's share counted. What each says is made up."""

from pathlib import Path
from typing import Any

import pytest

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.errors import InputError
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.teach import Teach
from orpo_ray.phases.teach_all import TeachAll, merge
from orpo_ray.tasks import Row
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import TraceDraft, TraceStore
from tests.tiny.runs import context_of, tiny_config
from tests.unit.config.data import changed

ROWS = 20


def shared_out(k: int, *weights: float) -> list[int]:
    more = [{"model": f"models/{place}", "weight": weight} for place, weight in enumerate(weights[1:])]
    config = parse_config(changed({"sampling.k": k, "teacher.weight": weights[0], "more_teachers": more}))
    each = config.of_teachers()
    assert all(one.more_teachers == [] for one in each)
    return [one.sampling.k for one in each]


def test_k_is_shared_out_by_weight() -> None:
    assert shared_out(8, 1, 1) == [4, 4]
    assert shared_out(8, 3, 1) == [6, 2]
    assert shared_out(8, 1, 1, 1) == [3, 3, 2], "the largest remainders, the first of equals first"
    assert shared_out(2, 10, 1, 1) == [2], "who would get none is not asked"
    assert shared_out(8, 5) == [8]


def test_a_mistake_in_a_further_teacher_is_named() -> None:
    with pytest.raises(
        InputError, match=r"more_teachers\.0\.base_url: not set, but more_teachers\.0\.backend `openai`"
    ):
        parse_config(changed({"more_teachers": [{"backend": "openai", "model": "m"}]}))


def config_of(tmp_path: Path) -> RunConfig:
    return tiny_config(
        tmp_path,
        Path("student"),
        task={"train_size": ROWS},
        more_teachers=[{"backend": "recorded", "path": "other.jsonl", "model": "other", "weight": 2}],  # type: ignore[arg-type]
        sampling={"k": 3},
    )


class SaysSo(Teach):
    """Stands in for TEACH with one teacher: the first is right in its first trace, the other in both of its own."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def key(self, context: RunContext) -> str:
        return f"{context.config.teacher.path}-{context.config.sampling.k}"

    def run(self, context: RunContext, *, must_be_right: bool = True) -> dict[str, Any]:
        assert not must_be_right
        k, path = context.config.sampling.k, str(context.config.teacher.path)
        self.asked.append((path, k))
        rows = split_of(context.config.task, "train", context.config.seed).rows()
        store = write(context.layout.storage / path, [self.said(row, path, k) for row in rows])
        return {"key": "key", "path": str(store.directory), "test": None, **store.counts.to_json()}

    @staticmethod
    def said(row: Row, path: str, k: int) -> list[Trace]:
        if path == "unused.jsonl":
            return [trace(row, 0, "the sum is plain to see", True)]
        return [trace(row, 0, "the sum is plain to see", True), trace(row, 1, "count the fingers of both hands", True)]


def trace(row: Row, sample: int, text: str, right: bool) -> Trace:
    verdict = "right" if right else "wrong"
    return Trace(row.id, sample, text, None, verdict, False, right, False, "teacher", "m")


def write(directory: Path, prompts: list[list[Trace]]) -> TraceStore:
    draft = TraceDraft(directory)
    draft.write(0, [item for traces in prompts for item in traces], len(prompts))
    return draft.finish(1, "key", {})


def test_each_is_asked_for_its_part_and_all_are_thinned_together(tmp_path: Path) -> None:
    context = context_of(config_of(tmp_path))
    teach = SaysSo()
    result = TeachAll(teach).run(context)
    assert teach.asked == [("unused.jsonl", 1), ("other.jsonl", 2)]
    # The other's first trace repeats the first teacher's.
    assert (result["prompts"], result["traces"], result["kept"], result["near_duplicates"]) == (ROWS, 60, 40, 20)
    first, other = result["teachers"]
    assert (first["teacher"], first["k"], first["positives"], first["share_of_positives"]) == (
        "unused.jsonl",
        1,
        20,
        0.5,
    )
    assert (other["teacher"], other["k"], other["positives"], other["weight"]) == ("other", 2, 20, 2)
    again = TeachAll(teach)
    assert again.still_there(context, result)
    assert again.run(context) == result


def test_the_key_changes_with_the_shares(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    other = config.model_copy(update={"sampling": config.sampling.model_copy(update={"k": 6})})
    keys = {TeachAll(SaysSo()).key(context_of(one)) for one in (config, other)}
    assert len(keys) == 2
    alone = config.model_copy(update={"more_teachers": []})
    assert TeachAll(SaysSo()).key(context_of(alone)) == "unused.jsonl-3", "one teacher's own key"


def test_prompts_that_one_did_not_answer_keep_their_place(tmp_path: Path) -> None:
    task = split_of(tiny_config(tmp_path, Path("student"), task={"train_size": 3}).task, "train", 0)
    a, b, c = task.rows()
    one = write(tmp_path / "one", [[trace(a, 0, "x y z", True)], [], [trace(c, 0, "p q r", False)]])
    two = write(tmp_path / "two", [[], [trace(b, 0, "u v w", True)], [trace(c, 0, "p q r", True)]])
    merged = list(merge(task, [one, two], 0.8))
    assert [[(item.prompt_id, item.sample, item.kept) for item in traces] for traces in merged] == [
        [(a.id, 0, True)],
        [(b.id, 1, True)],
        [(c.id, 0, False), (c.id, 1, True)],
    ]
