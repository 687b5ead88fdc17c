"""Tree attention: traces of one prompt share its keys and values, packed in one row without padding.

Each token sees its own segment causally, and a trace's tokens see all of their prompt. On a CPU that is three calls of
PyTorch's flash kernel a group, with no mask and no padding:

    prompt on itself (causal), all traces on the prompt (full), each trace on itself (causal),

where the last two are partial softmaxes, merged by their log-sum-exp as in FlashAttention's own inner loop
(arXiv 2205.14135, section 3.1; the split at a shared prefix is Hydragen's, arXiv 2402.05099). Their gradients need no
merging: given the merged output and log-sum-exp, the kernel's backward pass is exact for each part.

On a GPU it is one FlexAttention call (`flex.py`); where there is none, trace by trace with a mask.

Registered with transformers as the attention implementation `NAME`; a model reaches it through its own modelling code.

Legend: H query heads, G key/value heads, T packed tokens, Q and S tokens of a segment, E head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from orpo_ray.training import flex
from orpo_ray.training.packing import Branches

NAME = "orpo_tree"
"""What the attention implementation is called in transformers' registry."""


def register() -> None:
    """Make `NAME` known to transformers. It has no mask function, so that models build no mask for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Sequence[Branches] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed row, in the form transformers calls.

    Args:
        query: [1, H, T, E]; key, value: [1, G, T, E]. Without `tree`, any number of rows.
        attention_mask: None; `tree` says who sees whom.
        tree: the groups of the row, in order; None for rows that are plain causal sequences (padded layout).
        sliding_window: positions a token looks back, itself included; None for all.

    Returns:
        [1, T, H, E], and None for the weights, which are never made.

    Raises:
        ValueError: a mask or attention dropout was given.
    """
    if attention_mask is not None or dropout:
        raise ValueError("tree attention takes neither a mask nor dropout; load the student with `load_student`")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    longest = max(group.prompt + max(group.traces) for group in tree) if tree else query.shape[2]
    window = sliding_window if sliding_window is not None and sliding_window < longest else None
    out: Tensor | None
    if tree is not None and (out := flex.tree_on_gpu(query, key, value, tree, scaling, window)) is not None:
        return out.transpose(1, 2), None
    if (repeats := query.shape[1] // key.shape[1]) > 1:
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    if tree is None and window is None:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    elif tree is None:
        out = _masked(query, key, value, scaling, window)
    elif query.device.type == "cpu" and window is None:
        out = _CpuTree.apply(query, key, value, tree, scaling)  # type: ignore[no-untyped-call]
    else:
        out = masked_tree(query, key, value, tree, scaling, window)
    return out.transpose(1, 2), None


def masked_tree(
    query: Tensor, key: Tensor, value: Tensor, tree: Sequence[Branches], scaling: float, window: int | None = None
) -> Tensor:
    """The same through `scaled_dot_product_attention`, trace by trace on prompt and trace with a mask: any device.

    Args:
        query, key, value: [1, H, T, E].

    Returns:
        [1, H, T, E].
    """
    # split, not slices: the gradient of a slice is a tensor of the whole row's size, that of split one concatenation.
    lengths = [length for group in tree for length in (group.prompt, *group.traces)]
    pieces = zip(*(torch.split(x, lengths, dim=2) for x in (query, key, value)), strict=True)
    outs = []
    for group in tree:
        q, prompt_k, prompt_v = next(pieces)
        outs.append(_masked(q, prompt_k, prompt_v, scaling, window))
        for _ in group.traces:
            q, k, v = next(pieces)
            outs.append(_masked(q, torch.cat([prompt_k, k], 2), torch.cat([prompt_v, v], 2), scaling, window))
    return torch.cat(outs, dim=2)


def _masked(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None) -> Tensor:
    """Attention of the last Q of S positions."""
    queries, keys = query.shape[2], key.shape[2]
    if queries == 0:
        return query
    position_Q = torch.arange(keys - queries, keys, device=query.device)
    back_QS = position_Q[:, None] - torch.arange(keys, device=query.device)
    mask_QS = back_QS >= 0
    if window is not None:
        mask_QS &= back_QS < window
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask_QS, scale=scaling)


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _CpuTree(torch.autograd.Function):
    """The three kernel calls a group, and their gradients."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, tree: Sequence[Branches], scaling: float
    ) -> Tensor:
        out = torch.empty_like(query)
        lse = torch.empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        for prompt, branches, traces in _spans(tree):
            for own in (prompt, *traces):
                q, k, v = (x[:, :, own] for x in (query, key, value))
                out[:, :, own], lse[:, :, own] = _flash(q, k, v, 0.0, True, scale=scaling)
            if traces:
                q, k, v = query[:, :, branches], key[:, :, prompt], value[:, :, prompt]
                seen, seen_lse = _flash(q, k, v, 0.0, False, scale=scaling)
                _merge_(out[:, :, branches], lse[:, :, branches], seen, seen_lse)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.tree, ctx.scaling = tree, scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        grads = tuple(torch.empty_like(x) for x in (query, key, value))

        def part(queries: slice, keys: slice, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = query[:, :, queries], key[:, :, keys], value[:, :, keys]
            g, o, s = (x[:, :, queries] for x in (grad_out, out, lse))
            result: tuple[Tensor, Tensor, Tensor] = _flash_backward(g, q, k, v, o, s, 0.0, causal, scale=ctx.scaling)
            return result

        for prompt, branches, traces in _spans(ctx.tree):
            for own in (prompt, *traces):
                for grad, piece in zip(grads, part(own, own, causal=True), strict=True):
                    grad[:, :, own] = piece
            if traces:
                for grad, piece, span in zip(
                    grads, part(branches, prompt, causal=False), (branches, prompt, prompt), strict=True
                ):
                    grad[:, :, span] += piece
        return (*grads, None, None)


def _spans(tree: Sequence[Branches]) -> list[tuple[slice, slice, list[slice]]]:
    """Where each group's prompt, all its traces, and each non-empty trace lie in the row."""
    spans = []
    at = 0
    for group in tree:
        prompt = slice(at, at + group.prompt)
        at = first = prompt.stop
        traces = []
        for length in group.traces:
            if length:
                traces.append(slice(at, at + length))
            at += length
        spans.append((prompt, slice(first, at), traces))
    return spans


def _merge_(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> None:
    """Join two softmaxes over disjoint keys, in place of the first: each weighs as much as its share of the sum."""
    total = torch.logaddexp(lse, other_lse)
    own_share, other_share = (torch.exp(x - total).unsqueeze(-1) for x in (lse, other_lse))
    out.copy_(out * own_share + other * other_share)
    lse.copy_(total)
