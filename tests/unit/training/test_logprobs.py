"""Log-probabilities made in chunks are those of the whole logits, with a fraction of their memory."""

import copy

import pytest
import torch
from torch import Tensor, nn

from orpo_ray.training.logprobs import TokenLogProbs, chunk_rows


def plain(hidden: Tensor, head: nn.Linear, target: Tensor) -> Tensor:
    return torch.log_softmax(head(hidden), dim=-1).gather(1, target[:, None]).squeeze(1)


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 50 * 20, 1 << 20])
@pytest.mark.parametrize("kept_bytes", [0, 8 * 50 * 20, 1 << 20])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_whole_logits(bias: bool, kept_bytes: int, chunk_bytes: int) -> None:
    torch.manual_seed(0)
    head = nn.Linear(6, 50, bias=bias, dtype=torch.float64)
    target = torch.randint(0, 50, (37,))
    hidden = torch.randn(37, 6, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(37, dtype=torch.float64)
    inputs = (hidden, *head.parameters())
    got = TokenLogProbs(head, chunk_bytes, kept_bytes)(hidden, target)
    want = plain(hidden, head, target)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(want, inputs, upstream)
    for _ in range(2):  # a second backward pass finds what the first one used up
        for one, other in zip(torch.autograd.grad(got, inputs, upstream, retain_graph=True), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(1)
    head = nn.Linear(3, 7, dtype=torch.float64)
    target = torch.randint(0, 7, (20,))
    hidden = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: TokenLogProbs(head, 1)(h, target), (hidden,))


def test_bfloat16_weights_get_single_precision_log_probabilities() -> None:
    torch.manual_seed(2)
    head = nn.Linear(16, 300).bfloat16()
    target = torch.randint(0, 300, (64,))
    hidden = torch.randn(64, 16).bfloat16().requires_grad_()
    got = TokenLogProbs(head, 4 * 300 * 16)(hidden, target)
    want = torch.log_softmax(head(hidden).float(), dim=-1).gather(1, target[:, None]).squeeze(1)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    got.sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is not None
    assert hidden.grad.dtype == head.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("gathered", [1, 2 * 300 * 40, 1 << 20])
@pytest.mark.parametrize("bias", [False, True])
def test_bfloat16_gradients_are_as_near_to_the_exact_ones_as_those_of_whole_logits(
    bias: bool, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many chunks are gathered for a product; in double precision, of the same rounded weights, is exact."""
    monkeypatch.setattr("orpo_ray.training.logprobs.GATHERED_BYTES", gathered)
    torch.manual_seed(3)
    head = nn.Linear(16, 300, bias=bias).bfloat16()
    target, upstream = torch.randint(0, 300, (101,)), torch.randn(101)
    hidden = torch.randn(101, 16).bfloat16().requires_grad_()
    inputs = (hidden, *head.parameters())
    got = torch.autograd.grad(TokenLogProbs(head, 4 * 300 * 16, 1 << 14)(hidden, target), inputs, upstream)
    whole = torch.log_softmax(head(hidden).float(), dim=-1).gather(1, target[:, None]).squeeze(1)
    usual = torch.autograd.grad(whole, inputs, upstream)
    exact_head = copy.deepcopy(head).double()
    exact_hidden = hidden.detach().double().requires_grad_()
    logp = plain(exact_hidden, exact_head, target)
    exact = torch.autograd.grad(logp, (exact_hidden, *exact_head.parameters()), upstream.double())
    for ours, other, right in zip(got, usual, exact, strict=True):
        assert (ours - right).norm() <= 1.5 * (other - right).norm()
        assert (ours - right).norm() <= 0.01 * right.norm()


def test_a_frozen_head_gets_no_gradient() -> None:
    head = nn.Linear(4, 9).requires_grad_(False)
    hidden = torch.randn(5, 4, requires_grad=True)
    TokenLogProbs(head)(hidden, torch.arange(5)).sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is None


def test_memory_does_not_grow_with_vocabulary_times_length() -> None:
    """The largest tensors saved for the backward pass and made on the way, seen by the allocator's own profiler."""
    head = nn.Linear(8, 20_000)
    hidden = torch.randn(4_000, 8, requires_grad=True)
    scorer = TokenLogProbs(head, chunk_bytes=4 << 20, kept_bytes=0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        scorer(hidden, torch.randint(0, 20_000, (4_000,))).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    whole = 4_000 * 20_000 * 4
    assert largest < whole / 30


def test_what_is_kept_is_bounded() -> None:
    head = nn.Linear(8, 1_000)
    hidden = torch.randn(400, 8, requires_grad=True)
    for kept_bytes, chunks in ((0, 0), (4 * 1_000 * 250, 2), (1 << 30, 4)):
        logp = TokenLogProbs(head, chunk_bytes=4 * 1_000 * 100, kept_bytes=kept_bytes)(hidden, torch.arange(400))
        assert len(logp.grad_fn.kept) == chunks  # type: ignore[union-attr, attr-defined]


def test_chunks_have_a_floor() -> None:
    assert chunk_rows(50_000, 4 * 50_000 * 100) == 100
    assert chunk_rows(50_000, 1) == 16
