"""Groups are checked, cut without losing an answer, split and shared without changing the loss."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from orpo_ray.pairs import PairGroup
from orpo_ray.training.batching import NO_REJECTED, TokenGroup, Truncation, split, truncate
from orpo_ray.training.model import OrpoModel
from orpo_ray.training.sharing import Share, plan_micro_batches, share_batch, token_balance


def group(
    prompt: int, chosen: tuple[int, ...], rejected: tuple[int, ...], pairs: tuple[tuple[int, int], ...]
) -> TokenGroup:
    """A group by lengths; token ids count up, so that a cut shows."""
    return TokenGroup(
        tuple(range(prompt)),
        tuple(tuple(range(100, 100 + length)) for length in chosen),
        tuple(tuple(range(200, 200 + length)) for length in rejected),
        pairs,
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": ()}, "the prompt has no token"),
        ({"chosen": ((),)}, "a trace has no token"),
        ({"pairs": ()}, "no pairs"),
        ({"pairs": ((0, 1),)}, r"pair \(0, 1\) points at no trace"),
        ({"pairs": ((-1, 0),)}, r"pair \(-1, 0\) points at no trace"),
        ({"weight": -1.0}, "weight -1.0 is negative"),
        ({"rejected_logp": (-0.1, -0.2)}, "one sampler log-probability"),
    ],
)
def test_a_group_that_cannot_be_is_refused(wrong: dict[str, object], message: str) -> None:
    right: dict[str, object] = {
        "prompt": (1,),
        "chosen": ((2,),),
        "rejected": ((3,),),
        "pairs": ((0, 0),),
        "name": "p1",
    }
    with pytest.raises(ValueError, match=f"group 'p1': {message}"):
        TokenGroup(**{**right, **wrong})  # type: ignore[arg-type]


def test_what_fits_is_not_touched() -> None:
    whole = group(10, (6,), (4,), ((0, 0),))
    assert truncate(whole, 16) == (whole, Truncation())


def test_a_long_trace_loses_its_end() -> None:
    cut, counts = truncate(group(10, (8, 6), (30,), ((0, 0), (1, 0))), 16)
    assert cut.prompt == tuple(range(2, 10))
    assert cut.chosen == (tuple(range(100, 108)), tuple(range(100, 106)))
    assert cut.rejected == (tuple(range(200, 208)),)
    assert counts == Truncation(prompts=1, traces=1)


def test_a_long_prompt_loses_its_beginning_and_leaves_the_answer_whole() -> None:
    cut, counts = truncate(group(50, (5,), (3,), ((0, 0),)), 16)
    assert cut.prompt == tuple(range(39, 50))
    assert cut.chosen == (tuple(range(100, 105)),)
    assert counts == Truncation(prompts=1, traces=0)


@given(st.integers(1, 60), st.lists(st.integers(1, 60), min_size=1, max_size=3), st.integers(1, 60), st.integers(2, 64))
def test_no_cut_empties_anything(prompt: int, chosen: list[int], rejected: int, max_length: int) -> None:
    cut, _ = truncate(group(prompt, tuple(chosen), (rejected,), ((0, 0),)), max_length)
    assert cut.prompt
    assert all(cut.traces)
    assert len(cut.prompt) + max(map(len, cut.traces)) <= max_length
    assert len(cut.prompt) + max(map(len, cut.traces)) == min(max_length, prompt + max(*chosen, rejected))


def test_a_large_group_is_split_by_pairs() -> None:
    whole = group(10, (5, 6), (7, 8, 9), ((0, 0), (1, 1), (0, 2), (1, NO_REJECTED)))
    parts = split(whole, 30)
    assert [part.unique_tokens for part in parts] == [22, 24, 30]
    assert [part.pairs for part in parts] == [((0, 0),), ((0, 0),), ((0, 0), (1, NO_REJECTED))]
    assert [part.weight for part in parts] == [0.25, 0.25, 0.5]
    assert parts[1].chosen == (whole.chosen[1],)
    assert split(whole, 1000) == [whole]
    assert [len(part.pairs) for part in split(whole, 1)] == [1, 1, 1, 1]


@given(
    st.lists(st.integers(1, 500), max_size=40),
    st.integers(1, 5),
    st.integers(100, 2000),
    st.none() | st.integers(1, 4),
)
def test_a_plan_holds_each_group_once_within_budget_and_equal_steps(
    sizes: list[int], ranks: int, budget: int, max_rows: int | None
) -> None:
    plan = plan_micro_batches(sizes, ranks, budget, max_rows)
    assert len(plan) == ranks
    assert len({len(micro_steps) for micro_steps in plan}) == 1
    held = [indices for micro_steps in plan for indices in micro_steps]
    assert sorted(index for indices in held for index in indices) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in indices) <= budget or len(indices) == 1 for indices in held)
    assert max_rows is None or all(len(indices) <= max_rows for indices in held)
    assert plan == plan_micro_batches(sizes, ranks, budget, max_rows)


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=20), st.integers(1, 4))
def test_each_row_is_answered_for_once_by_a_rank_that_trains_it(rows: list[tuple[int, bool]], ranks: int) -> None:
    """Split rows too; rows of weight 0 are trained by none, and still answered for."""
    pairs = ((0, 0), (1, 0))
    groups = [
        replace(group(length, (length, 3), (5,), pairs), weight=float(real), name=str(at))
        for at, (length, real) in enumerate(rows)
    ]
    shares = share_batch(groups, ranks, token_budget=60)
    assert sorted(row for share in shares for row in share.rows) == list(range(len(rows)))
    for share in shares:
        trained = {part.name for part in itertools.chain(*share.micro_batches)}
        assert {str(row) for row in share.rows if rows[row][1]} <= trained
    trained_pairs = Counter(
        part.name for share in shares for part in itertools.chain(*share.micro_batches) for _ in part.pairs
    )
    assert trained_pairs == {str(at): 2 for at, (_, real) in enumerate(rows) if real}


def test_the_balance_is_that_of_the_fullest_rank_in_each_micro_step() -> None:
    """By hand: 30 beside 10, then 20 beside 20: (30 + 20) / (20 + 20)."""
    one, ten, twenty = (group(length - 8, (4,), (4,), ((0, 0),)) for length in (30, 10, 20))
    shares = [Share([[one], [twenty]], [0, 1]), Share([[ten], [twenty]], [2, 3])]
    assert [share.tokens for share in shares] == [50, 30]
    assert token_balance(shares) == 1.25
    assert token_balance([Share([[]], []), Share([[]], [])]) == 1.0


def test_ranks_are_balanced_in_every_micro_step() -> None:
    """Lengths as of GSM8K with four pairs a prompt: the slowest rank is within 10 % of the mean."""
    generator = torch.Generator().manual_seed(0)
    worst = []
    for _ in range(50):
        sizes = (torch.randn(64, generator=generator) * 250 + 1000).clamp(min=200).int().tolist()
        plan = plan_micro_batches(sizes, ranks=4, token_budget=8192)
        for side_by_side in zip(*plan, strict=True):
            loads = [sum(sizes[i] for i in indices) for indices in side_by_side]
            worst.append(max(loads) / (sum(loads) / len(loads)))
    assert max(worst) <= 1.1
    assert sum(worst) / len(worst) <= 1.03


def test_the_loss_does_not_depend_on_ranks_budget_or_who_received_what(
    make_student: Callable[..., PreTrainedModel], groups: list[TokenGroup]
) -> None:
    model = OrpoModel(make_student("llama"))
    whole, *_ = model(model.batch(groups, real_rows=3))
    whole.backward()
    want = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for ranks, budget, max_rows in ((1, 1000, None), (2, 1000, None), (2, 20, 1), (3, 1, None), (5, 30, 2)):
        for order in (groups, groups[::-1]):
            model.zero_grad()
            total = 0.0
            for share in share_batch(order, ranks, budget, max_rows):
                for micro_batch in share.micro_batches:
                    loss, *_ = model(model.batch(micro_batch, real_rows=3))
                    loss.backward()
                    total += loss.item()
            assert total == pytest.approx(whole.item(), rel=1e-6)
            for name, p in model.named_parameters():
                assert p.grad is not None
                torch.testing.assert_close(p.grad, want[name], rtol=1e-4, atol=1e-5)


def test_a_row_of_the_stream_becomes_a_group() -> None:
    row = PairGroup(
        index=3, epoch=1, prompt_id="p7", coin="live", policy="live", version=2, real=True, prompt=[1, 2],
        chosen=[[3], [4, 5]], rejected=[[6]], rejected_logp=[-0.5], pair_chosen=[1, 0], pair_rejected=[0, -1],
    )  # fmt: skip
    assert TokenGroup.from_pair_group(row) == TokenGroup(
        (1, 2), ((3,), (4, 5)), ((6,),), ((1, 0), (0, NO_REJECTED)), 1.0, "p7", (-0.5,)
    )
    assert TokenGroup.from_pair_group(replace(row, real=False)).weight == 0.0
