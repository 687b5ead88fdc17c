"""What SEED says of a student that cannot be contrasted; the traces are there already, so no engine starts."""

from pathlib import Path

import pytest

from orpo_ray.errors import InputError
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.seed import Seed, traces_key
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import TraceDraft
from tests.tiny.models import make_model
from tests.tiny.runs import context_of, teach_by_hand, tiny_config


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    context = context_of(tiny_config(tmp_path, make_model(tmp_path / "student")))
    teach_by_hand(context)
    return context


def sampled(context: RunContext, verdict: str, *, truncated: bool = False) -> None:
    """The initial student's traces as SEED would have left them: one a prompt, none of which is kept."""
    key = traces_key(context)
    draft = TraceDraft(context.layout.traces("student", key))
    rows = split_of(context.config.task, "train", context.config.seed).rows()
    traces = [Trace(row.id, 0, "text", [5, 2], verdict, truncated, False, False, "student", "tiny") for row in rows]
    draft.write(0, traces, len(rows))
    draft.finish(1, key, {"by": "hand"})


def test_a_student_that_is_never_wrong_is_refused_with_the_numbers(context: RunContext) -> None:
    sampled(context, "right")
    with pytest.raises(InputError) as raised:
        Seed().run(context)
    assert str(raised.value) == (
        f"student.model: {context.config.student.model} made no wrong trace that counts in 20 traces of 20 prompts "
        "(20 are right), so there is nothing to contrast; take a harder task or a smaller student"
    )
    assert raised.value.exit_code == 2


def test_one_whose_wrong_traces_are_all_dropped_is_told_which_options_drop_them(context: RunContext) -> None:
    sampled(context, "unparsed", truncated=True)
    with pytest.raises(InputError, match=r"20 were cut by sampling\.max_tokens: raise it, or keep such traces by"):
        Seed().run(context)
