"""How positives and negatives become pairs, and the group that carries them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.pairs import build_group, from_table, match, to_table


@given(positives=st.integers(1, 9), negatives=st.integers(0, 9), most=st.integers(1, 9), epoch=st.integers(1, 5))
def test_the_promise_of_design(positives: int, negatives: int, most: int, epoch: int) -> None:
    pairs = match(positives, negatives, most, seed=3, epoch=epoch, prompt_id="p")
    assert len(pairs) == min(most, max(positives, negatives))
    assert {chosen for chosen, _ in pairs} <= set(range(positives))
    if negatives:
        assert {rejected for _, rejected in pairs} <= set(range(negatives))
    else:
        assert {rejected for _, rejected in pairs} == {-1}
    # The shorter list is cycled: no trace is used twice before every trace of its list is used once.
    for side, count in ((0, positives), (1, negatives)):
        used = [pair[side] for pair in pairs]
        if count:
            assert len(set(used)) == min(count, len(pairs))


def test_traces_beyond_pairs_per_prompt_get_their_turn() -> None:
    used = {pair for epoch in range(1, 30) for pair in match(8, 8, 2, seed=0, epoch=epoch, prompt_id="p")}
    assert {chosen for chosen, _ in used} == set(range(8))
    assert {rejected for _, rejected in used} == set(range(8))


def group(matched: list[tuple[int, int]], **changes: object):
    fields = {
        "index": 5, "epoch": 1, "prompt_id": "p", "coin": "live", "policy": "live", "version": 2, "real": True, "prompt": [1, 2],
        "positives": [[10], [11], [12]], "negatives": [[20], [21]], "negatives_logp": [-0.5, float("nan")], "matched": matched,
    }  # fmt: skip
    return build_group(**(fields | changes))  # type: ignore[arg-type]


def test_a_group_carries_only_what_its_pairs_use() -> None:
    built = group([(2, 1), (0, 1)])
    assert built.chosen == [[12], [10]]
    assert built.rejected == [[21]]
    assert list(zip(built.pair_chosen, built.pair_rejected, strict=True)) == [(0, 0), (1, 0)]


def test_a_group_without_negatives_is_an_sft_row() -> None:
    built = group([(1, -1)], policy="none", negatives=[], negatives_logp=[])
    assert built.rejected == []
    assert built.pair_rejected == [-1]


def test_groups_survive_arrow() -> None:
    groups = [group([(0, 0)], negatives_logp=[-0.25, -0.5]), group([(1, -1)], policy="none", negatives=[])]
    assert from_table(to_table(groups)) == groups


def test_a_float32_logp_is_what_travels() -> None:
    assert from_table(to_table([group([(0, 0)], negatives_logp=[-0.1, 0.0])]))[0].rejected_logp[0] == pytest.approx(
        -0.1
    )
