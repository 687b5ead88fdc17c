"""Log-probabilities of given tokens straight from hidden states, a few rows of logits at a time.

The logits of N tokens over a vocabulary of V are N*V numbers, by far the largest tensor of a small model's training
step. Here they exist a chunk of rows at a time, in the forward pass and again in the backward pass; only a fixed
number of bytes of them is kept from one to the other, which spares the second product.

Legend: N scored tokens, C tokens of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 64 << 20
"""Size of one chunk's float32 logits: small beside a model, large enough for full speed of the matrix product."""
KEPT_BYTES = 256 << 20
"""Most logits kept for the backward pass, whatever the vocabulary and the length."""


def chunk_rows(vocabulary: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Rows of float32 logits that fit `chunk_bytes`, at least 16."""
    return max(16, chunk_bytes // (4 * vocabulary))


class _LinearLogProb(torch.autograd.Function):
    """log softmax(hidden @ weight.T + bias)[target], with the logits recomputed in the backward pass.

    One Function over all chunks, and not a checkpoint for each: the weight's gradient arrives once, and DeepSpeed
    reduces a gradient when it first arrives.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        rows: int,
        kept_bytes: int,
    ) -> Tensor:
        logp_N = torch.empty(hidden_ND.shape[0], dtype=_precision(hidden_ND), device=hidden_ND.device)
        lse_N = torch.empty_like(logp_N)
        kept: dict[int, Tensor] = {}
        for at in range(0, hidden_ND.shape[0], rows):
            chunk = slice(at, at + rows)
            logit_CV = _logits(hidden_ND[chunk], weight_VD, bias_V)
            lse_N[chunk] = torch.logsumexp(logit_CV, dim=-1)
            logp_N[chunk] = logit_CV.gather(1, target_N[chunk, None]).squeeze(1) - lse_N[chunk]
            if any(ctx.needs_input_grad) and logit_CV.nbytes <= kept_bytes:
                kept[at] = logit_CV
                kept_bytes -= logit_CV.nbytes
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N, lse_N)
        ctx.rows, ctx.kept = rows, kept
        return logp_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, target_N, lse_N = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        # Sums over chunks are kept in single precision: many small bfloat16 additions would lose them.
        precision = _precision(hidden_ND)
        grad_weight = torch.zeros_like(weight_VD, dtype=precision) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V, dtype=precision) if needs_bias else None
        for at in range(0, hidden_ND.shape[0], ctx.rows):
            chunk = slice(at, at + ctx.rows)
            # taken out: the gradient is made in their place, and a second backward pass makes them anew
            logit_CV = ctx.kept.pop(at, None)
            if logit_CV is None:
                logit_CV = _logits(hidden_ND[chunk], weight_VD, bias_V)
            # d logp / d logit = [target] - softmax
            grad_CV = logit_CV.sub_(lse_N[chunk, None]).exp_().mul_(-grad_N[chunk, None])
            grad_CV.scatter_add_(1, target_N[chunk, None], grad_N[chunk, None])
            if grad_bias is not None:
                grad_bias += grad_CV.sum(0)
            grad_CV = grad_CV.to(hidden_ND.dtype)
            if grad_hidden is not None:
                torch.mm(grad_CV, weight_VD, out=grad_hidden[chunk])
            if grad_weight is not None:
                _add_product(grad_weight, grad_CV.t(), hidden_ND[chunk])
        return (
            grad_hidden,
            grad_weight.to(weight_VD.dtype) if grad_weight is not None else None,
            grad_bias.to(bias_V.dtype) if grad_bias is not None else None,
            None,
            None,
            None,
        )


def _precision(hidden: Tensor) -> torch.dtype:
    """Single precision for everything after the matrix product, or double where the model is in double."""
    return torch.promote_types(hidden.dtype, torch.float32)


def _logits(hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """The product in the model's precision, then at least single."""
    return nn.functional.linear(hidden_CD, weight_VD, bias_V).to(_precision(hidden_CD))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


class TokenLogProbs(nn.Module):
    """The output layer as a source of log-probabilities.

    The layer itself belongs to the student: it is kept out of this module's own parameters, so that it has one name in
    the state dict. Under ZeRO-3 the layer's parameters are then external ones of this module: see `own_parameters`.
    """

    def __init__(self, head: nn.Linear, chunk_bytes: int = CHUNK_BYTES, kept_bytes: int = KEPT_BYTES) -> None:
        super().__init__()
        self._kept_bytes = kept_bytes
        self._head = (head,)
        self._rows = chunk_rows(head.out_features, chunk_bytes)

    def own_parameters(self) -> list[nn.Parameter]:
        """Those of the layer, which DeepSpeed's ZeRO-3 has to gather for this module as if they were its own."""
        return list(self._head[0].parameters())

    def forward(self, hidden_ND: Tensor, target_N: Tensor) -> Tensor:
        """Log-probabilities in nats, [N], float32 (float64 where the model is)."""
        (head,) = self._head
        logp_N: Tensor = _LinearLogProb.apply(  # type: ignore[no-untyped-call]
            hidden_ND, head.weight, head.bias, target_N, self._rows, self._kept_bytes
        )
        return logp_N
