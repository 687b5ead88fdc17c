"""Tree attention on a GPU: one FlexAttention call a layer over the whole packed row.

Who sees whom is a function of three numbers of each token (group, branch, position); of the row's blocks of 128 by 128
tokens only those are computed in which anybody sees anybody, and the function is asked only where not all do. Rows are
filled up to one of few lengths, so that the kernel is compiled seldom: at most 8 lengths between a power of two and the
next, at most an eighth of a row filling.

Legend: H query heads, G key/value heads, T packed tokens, P tokens after filling up, E head size, N blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from orpo_ray.training.packing import Branches

log = logging.getLogger(__name__)

BLOCK = 128
_PROMPT, _FILLING = -1, -1
_SMALLEST_HEAD = 16
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# Mask entries that are looked at together when the blocks are sorted out.
_ENTRIES_AT_A_TIME = 1 << 24


def usable(query: Tensor) -> bool:
    """Whether FlexAttention has a kernel, forward and backward, for a query [1, H, T, E] of this device and form."""
    return query.device.type == "cuda" and query.dtype in _DTYPES and query.shape[-1] >= _SMALLEST_HEAD


_refused: list[str] = []
"""Why FlexAttention could not be compiled in this process; it is tried once."""


def tree_on_gpu(
    query: Tensor, key: Tensor, value: Tensor, tree: Sequence[Branches], scaling: float, window: int | None = None
) -> Tensor | None:
    """`flex_tree` where it can be; None where attention has to be computed another way."""
    if _refused or not usable(query):
        return None
    try:
        return flex_tree(query, key, value, tree, scaling, window)
    except TorchDynamoException as error:
        _refused.append(str(error).splitlines()[0])
        log.warning("FlexAttention cannot be compiled here, so traces attend one by one: %s", _refused[0])
        return None


def flex_tree(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree: Sequence[Branches],
    scaling: float,
    window: int | None = None,
    kernel: Callable[..., Any] | None = None,
) -> Tensor:
    """Attention over a packed row.

    Args:
        query: [1, H, T, E]; key, value: [1, G, T, E], where G divides H.
        window: positions a token looks back, itself included; None for all.
        kernel: what to call in place of the compiled `flex_attention`.

    Returns:
        [1, H, T, E].
    """
    tokens = query.shape[2]
    padded = padded_length(tokens)
    query, key, value = (F.pad(x, (0, 0, 0, padded - tokens)) for x in (query, key, value))
    mask = block_mask(tuple(tree), padded, window, query.device)
    call = kernel or _compiled()
    out: Tensor = call(query, key, value, block_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
    return out[:, :, :tokens]


def padded_length(tokens: int) -> int:
    """The length that a row of `tokens` is filled up to: a multiple of 128, one of 8 between powers of two."""
    step = max(BLOCK, (1 << (max(tokens, 1) - 1).bit_length()) // 16)
    return -(-tokens // step) * step


@lru_cache(maxsize=8)  # the layers of a model ask for the same one, one after the other
def block_mask(tree: tuple[Branches, ...], length: int, window: int | None, device: torch.device) -> BlockMask:
    """Who sees whom in a row of `length` tokens, of which the last ones may be filling that nobody sees but itself."""
    group_P, branch_P, position_P = (column.to(device) for column in _columns(tree, length))
    index_P = torch.arange(length, device=device)

    def sees(batch: Any, head: Any, q: Any, k: Any) -> Any:
        own = (branch_P[k] == _PROMPT) | (branch_P[k] == branch_P[q])
        back = position_P[q] - position_P[k]
        seen = (group_P[q] == group_P[k]) & own & (back >= 0) & (group_P[q] != _FILLING)
        if window is not None:
            seen = seen & (back < window)
        # A softmax over nothing is not a number.
        return seen | (q == k)

    blocks = length // BLOCK
    some_NN = torch.empty(blocks, blocks, dtype=torch.bool, device=device)
    all_NN = torch.empty_like(some_NN)
    rows = max(1, _ENTRIES_AT_A_TIME // (length * BLOCK))
    for first in range(0, blocks, rows):
        chunk = slice(first, min(first + rows, blocks))
        q = index_P[first * BLOCK : chunk.stop * BLOCK, None]
        entries = sees(None, None, q, index_P[None]).view(-1, BLOCK, blocks, BLOCK)
        some_NN[chunk], all_NN[chunk] = entries.any(3).any(1), entries.all(3).all(1)
    partial_NN = some_NN & ~all_NN
    return BlockMask.from_kv_blocks(
        *_ordered(partial_NN), *_ordered(all_NN), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )


def _columns(tree: Sequence[Branches], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Group, branch and position of each token, [P] each, int32."""
    groups: list[int] = []
    branches: list[int] = []
    positions: list[int] = []
    for number, group in enumerate(tree):
        for branch, size, start in (
            (_PROMPT, group.prompt, 0),
            *((at, trace, group.prompt) for at, trace in enumerate(group.traces)),
        ):
            groups += [number] * size
            branches += [branch] * size
            positions += range(start, start + size)
    filling = [_FILLING] * (length - len(groups))
    return (
        torch.tensor(groups + filling, dtype=torch.int32),
        torch.tensor(branches + filling, dtype=torch.int32),
        torch.tensor(positions + filling, dtype=torch.int32),
    )


def _ordered(wanted_NN: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of blocks how many are wanted, [1, 1, N], and their indices first, [1, 1, N, N]."""
    count = wanted_NN.sum(1, dtype=torch.int32)
    indices = torch.argsort(wanted_NN.to(torch.int8), dim=1, descending=True, stable=True).to(torch.int32)
    return count[None, None], indices[None, None]


@cache
def _compiled() -> Callable[..., Any]:
    # Each length is compiled once; by default PyTorch would give up after 8, and compute every block of every row.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    log.info("packed attention by FlexAttention, compiled for each of few row lengths")
    return torch.compile(flex_attention, dynamic=False)
