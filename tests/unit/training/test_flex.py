"""FlexAttention over the tree. No GPU here: values by PyTorch's own uncompiled computation, which runs on a CPU.

Its gradients on a CPU are refused by a check of the device alone; with that put aside the same mathematics gives them.
What these tests cannot see is the kernel that is compiled for a GPU.
"""

import random

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import flex_attention as torch_flex

from orpo_ray.training import flex
from orpo_ray.training.attention import masked_tree, tree_attention
from orpo_ray.training.flex import block_mask, flex_tree, padded_length, usable
from orpo_ray.training.packing import Branches
from tests.unit.training.test_attention import TREE, explicit_mask

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture
def gradients_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_flex, "_validate_device", lambda query, key, value: None)


def long_tree(seed: int, groups: int = 4) -> tuple[Branches, ...]:
    """A few hundred tokens: several blocks of 128, whole, partial and empty ones."""
    draw = random.Random(seed)
    return tuple(
        Branches(draw.randrange(1, 200), tuple(draw.randrange(0, 90) for _ in range(draw.randrange(1, 5))))
        for _ in range(groups)
    )


def tokens_of(tree: tuple[Branches, ...]) -> int:
    return sum(group.prompt + sum(group.traces) for group in tree)


def inputs(tokens: int, heads: int, groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, n, tokens, 16, dtype=dtype) for n in (heads, groups, groups))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


@pytest.mark.usefixtures("gradients_on_a_cpu")
@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("tree", [TREE, long_tree(1)], ids=["small", "long"])
def test_values_and_gradients_are_those_of_a_masked_softmax(
    tree: tuple[Branches, ...], heads: int, groups: int, window: int | None
) -> None:
    q, k, v = inputs(tokens_of(tree), heads, groups, torch.float64)
    out = flex_tree(q, k, v, tree, 0.3, window, kernel=torch_flex.flex_attention)
    wide_k, wide_v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
    expected = masked_tree(q, wide_k, wide_v, tree, 0.3, window)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(out)
    for one, other in zip(
        torch.autograd.grad(out, (q, k, v), upstream),
        torch.autograd.grad(expected, (q, k, v), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize("seed", range(2))
def test_blocks_are_sorted_out_as_pytorch_does(seed: int, window: int | None) -> None:
    """`create_block_mask` looks at every entry of the mask; the entries are checked one by one below."""
    tree = long_tree(seed, groups=3)
    length = padded_length(tokens_of(tree))
    ours = block_mask(tree, length, window, torch.device("cpu"))
    theirs = torch_flex.create_block_mask(ours.mask_mod, None, None, length, length, device="cpu")
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), msg=name)
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert ours.sparsity() > 0
    entries = torch_flex.create_mask(ours.mask_mod, None, None, length, length, device="cpu")[0, 0]
    tokens = tokens_of(tree)
    assert torch.equal(entries[:tokens, :tokens], explicit_mask(tree, window))
    filling = torch.eye(length, dtype=torch.bool)
    assert torch.equal(entries[tokens:], filling[tokens:])
    assert torch.equal(entries[:, tokens:], filling[:, tokens:])


def test_few_lengths_and_little_filling() -> None:
    lengths = [padded_length(tokens) for tokens in range(1, 1 << 15)]
    assert all(length >= tokens and length % 128 == 0 for tokens, length in enumerate(lengths, 1))
    assert all(length <= max(128, tokens * 9 / 8 + 128) for tokens, length in enumerate(lengths, 1))
    assert len({length for length in lengths if 2048 < length <= 32768}) == 4 * 8


def test_one_compilation_a_length_whatever_the_tree() -> None:
    counter = CompileCounter()
    torch._dynamo.reset()
    kernel = torch.compile(torch_flex.flex_attention, backend=counter, dynamic=False)
    lengths = set()
    for seed in range(8):
        tree = long_tree(seed, groups=2)
        lengths.add(padded_length(tokens_of(tree)))
        with torch.no_grad():
            q, k, v = inputs(tokens_of(tree), 4, 2, torch.float32)
            flex_tree(q, k, v, tree, 0.3, kernel=kernel)
    assert 1 < len(lengths) < 8
    assert counter.frame_count == len(lengths)


def test_where_it_cannot_be_compiled_another_way_is_taken_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU, with a kernel that fails to compile."""

    def fails(*args: Tensor, **options: object) -> Tensor:
        raise BackendCompilerFailed(lambda: None, RuntimeError("no such target"), None)

    monkeypatch.setattr(flex, "usable", lambda query: True)
    monkeypatch.setattr(flex, "_compiled", lambda: fails)
    monkeypatch.setattr(flex, "_refused", [])
    q, k, v = inputs(tokens_of(TREE), 4, 2, torch.float32)
    for _ in range(2):
        out, _ = tree_attention(torch.nn.Module(), q, k, v, None, tree=TREE, scaling=0.3)
    wide_k, wide_v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    torch.testing.assert_close(out, masked_tree(q, wide_k, wide_v, TREE, 0.3).transpose(1, 2))
    assert caplog.text.count("FlexAttention cannot be compiled here") == 1


def test_on_a_gpu_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the uncompiled computation in the place of the kernel: the same as this device's own path."""
    q, k, v = (x.detach() for x in inputs(tokens_of(TREE), 4, 2, torch.float32))
    expected, _ = tree_attention(torch.nn.Module(), q, k, v, None, tree=TREE, scaling=0.3)
    called = []
    monkeypatch.setattr(flex, "usable", lambda query: True)
    monkeypatch.setattr(flex, "_refused", [])
    monkeypatch.setattr(flex, "_compiled", lambda: called.append(1) or torch_flex.flex_attention)
    out, _ = tree_attention(torch.nn.Module(), q, k, v, None, tree=TREE, scaling=0.3)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert called


def test_it_is_for_gpus() -> None:
    assert not usable(torch.empty(1, 2, 8, 64))
    assert not usable(torch.empty(1, 2, 8, 64, device="meta"))
