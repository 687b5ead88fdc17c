"""Which of a teacher's traces become positives, and what is written of them."""

from pathlib import Path

import pyarrow as pa
import pytest

from orpo_ray.errors import VerifierError
from orpo_ray.tasks import Row
from orpo_ray.teacher.caller import ASKED, BLOCK_PROMPTS, Asking
from orpo_ray.teacher.judging import Judging, TeacherJudge, judge_samples
from orpo_ray.teacher.protocol import Sample
from orpo_ray.traces.selection import Choice
from orpo_ray.traces.store import TraceDraft
from tests.tiny.sums import SumsTask

ROW = Row("2+3", "train", {"a": 2, "b": 3})


def test_right_whole_and_different_traces_are_kept() -> None:
    told = [
        (Sample("the answer is 6"), "wrong", Choice.UNFIT),
        (Sample("two and three make five, so the answer is 5"), "right", Choice.KEPT),
        (Sample("two and three make five, so the answer is 5!"), "right", Choice.NEAR_DUPLICATE),
        (Sample("no idea"), "unparsed", Choice.UNFIT),
        (Sample("a longer way round: the answer is 5", truncated=True), "right", Choice.UNFIT),
        (Sample("Count on from 2 by one, by one, by one. It follows that the answer is 5"), "right", Choice.KEPT),
    ]
    verdicts, choices = judge_samples(SumsTask(), ROW, [sample for sample, _, _ in told], 0.8)
    assert [(str(verdict), choice) for verdict, choice in zip(verdicts, choices, strict=True)] == [
        (verdict, choice) for _, verdict, choice in told
    ]


class BrokenTask(SumsTask):
    def gold(self, row: Row) -> str:
        raise ZeroDivisionError("oops")


def test_a_verifier_that_breaks_names_the_row_and_is_no_wrong_answer() -> None:
    with pytest.raises(VerifierError, match=r"row 2\+3: ZeroDivisionError: oops"):
        judge_samples(BrokenTask(), ROW, [Sample("the answer is 5")], 0.8)


def asking() -> Asking:
    return Asking(SumsTask(sizes={"train": None}), k=2, temperature=0.8, top_p=1.0, max_tokens=16, run_seed=3)


def asked(block: int, prompts: int) -> pa.Table:
    """Block `block`, in which each prompt is answered right once and wrong once."""
    lines = []
    for place, row in enumerate(asking().rows(block)[:prompts]):
        texts = [f"the answer is {row.data['a'] + row.data['b']}", "the answer is 99"]
        lines.append(
            {
                "asking": 0,
                "block": block,
                "position": block * BLOCK_PROMPTS + place,
                "texts": texts,
                "truncated": [False] * 2,
            }
        )
    return pa.Table.from_pylist(lines, schema=ASKED)


def test_a_block_is_judged_counted_and_written_with_its_provenance(tmp_path: Path) -> None:
    draft = TraceDraft(tmp_path / "teacher-k")
    (counts,) = TeacherJudge([Judging(asking(), "abc", 0.8, draft)])(asked(1, BLOCK_PROMPTS)).to_pylist()
    assert (counts["prompts"], counts["traces"], counts["right"], counts["kept"]) == (16, 32, 16, 16)
    assert draft.blocks() == {1}
    draft.write(0, [], 0)
    prompt_id, traces = next(draft.finish(2, "k", {}).prompts())
    row = asking().rows(1)[0]
    assert prompt_id == row.id
    first = traces[0]
    assert (first.source, first.model, first.version, first.token_ids) == ("teacher", "abc", 0, None)
    assert (first.seed, first.temperature, first.sample) == (asking().seed(row), 0.8, 0)
    assert [trace.verdict for trace in traces] == ["right", "wrong"]


def test_a_recorded_trace_claims_no_seed(tmp_path: Path) -> None:
    draft = TraceDraft(tmp_path / "teacher-k")
    TeacherJudge([Judging(asking(), "abc", 0.8, draft, recorded=True)])(asked(0, BLOCK_PROMPTS))
    (_, traces), *_ = draft.finish(1, "k", {}).prompts()
    assert (traces[0].seed, traces[0].temperature) == (None, None)


@pytest.mark.parametrize(
    ("batch", "said"),
    [(asked(0, 5), "cut block 0: 5 of its 16 rows"), (pa.concat_tables([asked(0, 16), asked(1, 16)]), "merged blocks")],
    ids=["cut", "merged"],
)
def test_a_block_that_came_apart_is_never_written(tmp_path: Path, batch: pa.Table, said: str) -> None:
    draft = TraceDraft(tmp_path / "teacher-k")
    with pytest.raises(RuntimeError, match=said):
        TeacherJudge([Judging(asking(), "abc", 0.8, draft)])(batch)
    assert draft.blocks() == set()


def test_without_a_store_it_only_counts() -> None:
    (counts,) = TeacherJudge([Judging(asking(), "", 1.0, None)])(asked(0, BLOCK_PROMPTS)).to_pylist()
    assert (counts["prompts"], counts["right"]) == (16, 16)
