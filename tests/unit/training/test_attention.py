"""Tree attention against a full softmax with an explicit mask, and its gradients by finite differences."""

import pytest
import torch
from torch import Tensor

from orpo_ray.training.attention import masked_tree, tree_attention
from orpo_ray.training.packing import Branches

TREE = (Branches(3, (4, 0, 2)), Branches(1, (3,)), Branches(5, (0,)), Branches(2, (1, 1)))
TOKENS = 3 + 6 + 1 + 3 + 5 + 2 + 2


def explicit_mask(tree: tuple[Branches, ...], window: int | None = None) -> Tensor:
    """[T, T]: built token by token from the definition."""
    owner: list[tuple[int, int, int]] = []  # group, branch (-1 for the prompt), position
    for number, group in enumerate(tree):
        owner += [(number, -1, i) for i in range(group.prompt)]
        for branch, length in enumerate(group.traces):
            owner += [(number, branch, group.prompt + i) for i in range(length)]
    mask = torch.zeros(len(owner), len(owner), dtype=torch.bool)
    for q, (q_group, q_branch, q_position) in enumerate(owner):
        for k, (k_group, k_branch, k_position) in enumerate(owner):
            seen = q_group == k_group and k_branch in (-1, q_branch) and k_position <= q_position
            mask[q, k] = seen and (window is None or q_position - k_position < window)
    return mask


def inputs(heads: int, groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, TOKENS, n, 8, dtype=dtype).transpose(1, 2) for n in (heads, groups, groups))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_equals_a_masked_softmax(
    dtype: torch.dtype, tolerance: float, heads: int, groups: int, window: int | None
) -> None:
    q, k, v = inputs(heads, groups, dtype)
    out, _ = tree_attention(torch.nn.Module(), q, k, v, None, tree=TREE, scaling=0.3, sliding_window=window)
    scores = q.double() @ k.double().repeat_interleave(heads // groups, 1).transpose(2, 3) * 0.3
    weights = scores.masked_fill(~explicit_mask(TREE, window), -torch.inf).softmax(-1)
    expected = (weights @ v.double().repeat_interleave(heads // groups, 1)).transpose(1, 2)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    upstream = torch.randn_like(out)
    got = torch.autograd.grad(out, (q, k, v), upstream)
    want = torch.autograd.grad(expected, (q, k, v), upstream.double())
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other.to(dtype), rtol=tolerance, atol=5 * tolerance)


def test_gradients_by_finite_differences() -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return tree_attention(torch.nn.Module(), q, k, v, None, tree=TREE)[0]

    assert torch.autograd.gradcheck(attention, inputs(2, 1, torch.float64))


def test_the_path_for_other_devices_is_the_same() -> None:
    q, k, v = inputs(2, 2, torch.float64)
    out, _ = tree_attention(torch.nn.Module(), q, k, v, None, tree=TREE, scaling=0.3)
    torch.testing.assert_close(masked_tree(q, k, v, TREE, 0.3).transpose(1, 2), out, rtol=1e-12, atol=1e-12)


def test_masks_and_dropout_are_refused() -> None:
    q, k, v = inputs(2, 2, torch.float32)
    with pytest.raises(ValueError, match="neither a mask nor dropout"):
        tree_attention(torch.nn.Module(), q, k, v, None, tree=TREE, dropout=0.1)
    with pytest.raises(ValueError, match="neither a mask nor dropout"):
        tree_attention(torch.nn.Module(), q, k, v, torch.ones(1), tree=TREE)
