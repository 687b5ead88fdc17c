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
GATHERED_BYTES = 256 << 20
"""Most gradients of logits that are gathered for one product with the hidden states."""


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
        logits = _Logits(hidden_ND, weight_VD, bias_V, rows)
        logp_N = hidden_ND.new_empty(hidden_ND.shape[0], dtype=_precision(hidden_ND))
        lse_N = torch.empty_like(logp_N)
        kept: dict[int, Tensor] = {}
        for at in range(0, hidden_ND.shape[0], rows):
            chunk = slice(at, at + rows)
            keeps = any(ctx.needs_input_grad) and logits.nbytes(chunk) <= kept_bytes
            product_CV = logits.product(chunk, new=keeps)
            largest_C1 = product_CV.amax(dim=-1, keepdim=True).to(lse_N.dtype)
            sum_C = logits.precise(product_CV).sub_(largest_C1).exp_().sum(dim=-1)
            lse_N[chunk] = sum_C.log_().add_(largest_C1.squeeze(1))
            logp_N[chunk] = product_CV.gather(1, target_N[chunk, None]).squeeze(1) - lse_N[chunk]
            if keeps:
                kept[at] = product_CV  # in the model's precision: nothing is lost by it
                kept_bytes -= product_CV.nbytes
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
        logits = _Logits(hidden_ND, weight_VD, bias_V, ctx.rows)
        grad_weight = _WeightGradient(hidden_ND, weight_VD, ctx.rows) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V, dtype=precision) if needs_bias else None
        for at in range(0, hidden_ND.shape[0], ctx.rows):
            chunk = slice(at, at + ctx.rows)
            # taken out, so that each chunk's memory is free once it is done; a second backward pass makes them anew
            product_CV = ctx.kept.pop(at, None)
            if product_CV is None:
                product_CV = logits.product(chunk)
            # d logp / d logit = [target] - softmax
            grad_CV = logits.precise(product_CV).sub_(lse_N[chunk, None]).exp_().mul_(-grad_N[chunk, None])
            grad_CV.scatter_add_(1, target_N[chunk, None], grad_N[chunk, None])
            if grad_bias is not None:
                grad_bias += grad_CV.sum(0)
            grad_CV = grad_CV.to(hidden_ND.dtype) if grad_weight is None else grad_weight.take(grad_CV)
            if grad_hidden is not None:
                torch.mm(grad_CV, weight_VD, out=grad_hidden[chunk])
        return (
            grad_hidden,
            grad_weight.total().to(weight_VD.dtype) if grad_weight is not None else None,
            grad_bias.to(bias_V.dtype) if grad_bias is not None else None,
            None,
            None,
            None,
        )


def _precision(hidden: Tensor) -> torch.dtype:
    """Single precision for everything after the matrix product, or double where the model is in double."""
    return torch.promote_types(hidden.dtype, torch.float32)


class _Logits:
    """Chunks of logits, each in the same memory as the one before: on a CPU fresh memory costs as much as what is written to it."""

    def __init__(self, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, rows: int) -> None:
        self._hidden_ND, self._weight_VD, self._bias_V = hidden_ND, weight_VD, bias_V
        self._shape = min(rows, hidden_ND.shape[0]), weight_VD.shape[0]
        self._product_CV: Tensor | None = None
        self._precise_CV = hidden_ND.new_empty(self._shape, dtype=_precision(hidden_ND))

    def nbytes(self, chunk: slice) -> int:
        """Of a chunk's product."""
        return int(self._hidden_ND[chunk].shape[0]) * self._shape[1] * self._hidden_ND.element_size()

    def product(self, chunk: slice, *, new: bool = False) -> Tensor:
        """The chunk's logits in the model's precision; `new` where they are to outlive the next chunk's."""
        hidden_CD = self._hidden_ND[chunk]
        if new:
            return nn.functional.linear(hidden_CD, self._weight_VD, self._bias_V)
        if self._product_CV is None:
            self._product_CV = self._hidden_ND.new_empty(self._shape)
        out = self._product_CV[: hidden_CD.shape[0]]
        if self._bias_V is None:
            return torch.mm(hidden_CD, self._weight_VD.t(), out=out)
        return torch.addmm(self._bias_V, hidden_CD, self._weight_VD.t(), out=out)

    def precise(self, product_CV: Tensor) -> Tensor:
        """A copy in at least single precision, to be worked on in place."""
        return self._precise_CV[: product_CV.shape[0]].copy_(product_CV)


class _WeightGradient:
    """Sum over chunks of the logits' gradient times the hidden states, [V, D], in at least single precision.

    In 16 bits each product is made beside the sum and then added to it, which for a large vocabulary and a chunk of few rows
    takes longer than the product: there chunks are gathered first.
    """

    def __init__(self, hidden_ND: Tensor, weight_VD: Tensor, rows: int) -> None:
        self._hidden_ND, self._shape = hidden_ND, weight_VD.shape
        self._precision = _precision(hidden_ND)
        self._total_VD: Tensor | None = None
        self._done = self._gathered = 0
        self._grad_GV: Tensor | None = None
        if hidden_ND.dtype != self._precision:
            vocabulary = weight_VD.shape[0]
            most = GATHERED_BYTES // (vocabulary * hidden_ND.element_size())
            self._grad_GV = hidden_ND.new_empty(min(max(rows, most), hidden_ND.shape[0]), vocabulary)

    def take(self, grad_CV: Tensor) -> Tensor:
        """Take the next chunk, in the order of the hidden states; it is given back in their precision."""
        count = grad_CV.shape[0]
        if self._grad_GV is None:
            self._add(grad_CV)
            return grad_CV
        if self._gathered + count > self._grad_GV.shape[0]:
            self._add_gathered()
        self._gathered += count
        return self._grad_GV[self._gathered - count : self._gathered].copy_(grad_CV)

    def total(self) -> Tensor:
        """The sum over all chunks."""
        self._add_gathered()
        if self._total_VD is None:
            return self._hidden_ND.new_zeros(self._shape, dtype=self._precision)
        return self._total_VD

    def _add_gathered(self) -> None:
        if self._grad_GV is not None and self._gathered:
            self._add(self._grad_GV[: self._gathered])
            self._gathered = 0

    def _add(self, grad_GV: Tensor) -> None:
        hidden_GD = self._hidden_ND[self._done : self._done + grad_GV.shape[0]]
        self._done += grad_GV.shape[0]
        if self._total_VD is None:
            self._total_VD = (grad_GV.t() @ hidden_GD).to(self._precision)
        elif self._precision == grad_GV.dtype:
            self._total_VD.addmm_(grad_GV.t(), hidden_GD)
        else:
            self._total_VD += grad_GV.t() @ hidden_GD


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
