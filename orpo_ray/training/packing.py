"""Pair groups as tensors, in one of two layouts that give the same loss.

Packed: each prompt once, its traces as branches behind it, group after group in one row without padding.

    tokens     p p p p | a a a | b b b b | c c | q q q | d d ...
    positions  0 1 2 3 | 4 5 6 | 4 5 6 7 | 4 5 | 0 1 2 | 3 4 ...

A branch sees its prompt and itself (`attention.tree_attention`). Padded: each trace in a row of its own behind a copy
of its prompt, filled up at the right. With causal attention no token sees the filling, so there is no mask either.

In both, a trace's last token is left out of the input: nothing is predicted from it.

Legend: R rows, L tokens of a row, N scored tokens, S segments (traces, then prompts where they are scored), K pairs.
"""
# ruff: noqa: N815 - fields carry the legend's shape suffixes

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from orpo_ray.training.batching import FILLER, NO_REJECTED, TokenGroup


@dataclass(frozen=True)
class Branches:
    """Lengths in the packed row, in tokens: a prompt, and the traces behind it."""

    prompt: int
    traces: tuple[int, ...]


@dataclass(frozen=True)
class TraceBatch:
    """One micro-batch, ready for the model."""

    input_RL: Tensor
    """Token ids."""
    position_RL: Tensor | None
    """Positions, where they differ from 0, 1, 2, ... (packed)."""
    tree: tuple[Branches, ...] | None
    """Who sees whom in the packed row; None when padded."""
    predictor_N: Tensor
    """Where in the flattened input the token stands that each scored token is predicted from."""
    target_N: Tensor
    """The scored tokens."""
    segment_N: Tensor
    """The segment of each scored token."""
    length_S: Tensor
    """Scored tokens of each segment."""
    chosen_K: Tensor
    """Segment of each pair's chosen trace."""
    rejected_K: Tensor
    """Segment of each pair's rejected trace; any, where there is none."""
    prompt_K: Tensor | None
    """Segment of each pair's prompt, where the SFT term counts prompt tokens too."""
    has_rejected_K: Tensor
    weight_K: Tensor
    """Share of each pair in the global batch's loss, float64."""
    sampler_logp_K: Tensor
    """The sampler's mean log-probability of each pair's rejected trace, NaN where not known, float64."""
    names: tuple[str, ...]
    """The group of each pair, for messages."""
    unique_tokens: int
    """Tokens of the groups with each prompt counted once."""

    @property
    def computed_tokens(self) -> int:
        """Token positions that go through the model, padding included."""
        return self.input_RL.numel()

    def to(self, device: torch.device | str) -> TraceBatch:
        moved: dict[str, Any] = {
            f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


Layout = Callable[..., TraceBatch]


def packed(groups: Sequence[TokenGroup], real_rows: float, score_prompts: bool = False) -> TraceBatch:
    """Lay out groups with shared prompts.

    Args:
        groups: the micro-batch; those of weight 0 are left out, and none at all gives a batch of loss 0.
        real_rows: rows of weight 1 in the *global* batch.
        score_prompts: count the prompt's tokens in the SFT term (`sft_scope: prompt_and_completion`).
    """
    builder = _Builder(_weighted(groups), real_rows, score_prompts)
    tokens: list[int] = []
    positions: list[int] = []
    tree: list[Branches] = []
    for group in builder.groups:
        prompt_at = len(tokens)
        tokens.extend(group.prompt)
        positions.extend(range(len(group.prompt)))
        trace_at = []
        for trace in group.traces:
            trace_at.append(len(tokens))
            tokens.extend(trace[:-1])
            positions.extend(range(len(group.prompt), len(group.prompt) + len(trace) - 1))
        tree.append(Branches(len(group.prompt), tuple(len(trace) - 1 for trace in group.traces)))
        builder.add(group, [prompt_at] * len(trace_at), trace_at)
    return builder.build(torch.tensor([tokens]), torch.tensor([positions]), tuple(tree))


def padded(groups: Sequence[TokenGroup], real_rows: float, score_prompts: bool = False) -> TraceBatch:
    """Lay out groups with one row a trace; arguments as for `packed`."""
    builder = _Builder(_weighted(groups), real_rows, score_prompts)
    rows = [group.prompt + trace[:-1] for group in builder.groups for trace in group.traces]
    width = max(map(len, rows))
    row = 0
    for group in builder.groups:
        prompt_at = [width * (row + i) for i in range(len(group.traces))]
        builder.add(group, prompt_at, [at + len(group.prompt) for at in prompt_at])
        row += len(group.traces)
    # The filling repeats the row's last token: any id would do, and this one is surely in the vocabulary.
    filled = [list(tokens) + [tokens[-1]] * (width - len(tokens)) for tokens in rows]
    return builder.build(torch.tensor(filled), None, None)


def _weighted(groups: Sequence[TokenGroup]) -> list[TokenGroup]:
    return [group for group in groups if group.weight > 0] or [FILLER]


class _Builder:
    """Collects what is scored, from where each layout has put it."""

    def __init__(self, groups: list[TokenGroup], real_rows: float, score_prompts: bool) -> None:
        if real_rows <= 0:
            raise ValueError(f"a global batch with {real_rows} real rows has no mean; at least one row of weight 1")
        self.groups = groups
        self._real_rows = real_rows
        self._score_prompts = score_prompts
        self._predictors: list[Tensor] = []
        self._targets: list[int] = []
        self._lengths: list[int] = []
        self._pairs: list[tuple[int, int, int, float, float]] = []
        self._names: list[str] = []

    def add(self, group: TokenGroup, prompt_at: list[int], trace_at: list[int]) -> None:
        """Score one group.

        Args:
            prompt_at, trace_at: for each trace, the flat offset of its prompt's and of its own first token.
        """
        first = len(self._lengths)
        for trace, prompt, start in zip(group.traces, prompt_at, trace_at, strict=True):
            before = torch.tensor([prompt + len(group.prompt) - 1])
            self._score(trace, torch.cat([before, torch.arange(start, start + len(trace) - 1)]))
        prompt_segment = len(self._lengths)
        if self._score_prompts:
            # The first token of a prompt is predicted from nothing: a prompt of n tokens has n - 1 scores.
            self._score(group.prompt[1:], torch.arange(prompt_at[0], prompt_at[0] + len(group.prompt) - 1))
        weight = group.weight / len(group.pairs) / self._real_rows
        for chosen, rejected in group.pairs:
            sampler_logp = float("nan")
            if rejected != NO_REJECTED and group.rejected_logp:
                sampler_logp = group.rejected_logp[rejected]
            rejected_segment = first + len(group.chosen) + rejected if rejected != NO_REJECTED else NO_REJECTED
            self._pairs.append((first + chosen, rejected_segment, prompt_segment, weight, sampler_logp))
            self._names.append(group.name)

    def _score(self, tokens: Sequence[int], predictors: Tensor) -> None:
        self._targets.extend(tokens)
        self._predictors.append(predictors)
        self._lengths.append(len(tokens))

    def build(self, input_RL: Tensor, position_RL: Tensor | None, tree: tuple[Branches, ...] | None) -> TraceBatch:
        length_S = torch.tensor(self._lengths)
        chosen, rejected, prompt, weight, sampler_logp = zip(*self._pairs, strict=True)
        rejected_K = torch.tensor(rejected)
        return TraceBatch(
            input_RL=input_RL,
            position_RL=position_RL,
            tree=tree,
            predictor_N=torch.cat(self._predictors),
            target_N=torch.tensor(self._targets),
            segment_N=torch.repeat_interleave(torch.arange(len(length_S)), length_S),
            length_S=length_S,
            chosen_K=torch.tensor(chosen),
            rejected_K=rejected_K.clamp(min=0),
            prompt_K=torch.tensor(prompt) if self._score_prompts else None,
            has_rejected_K=rejected_K != NO_REJECTED,
            weight_K=torch.tensor(weight, dtype=torch.float64),
            sampler_logp_K=torch.tensor(sampler_logp, dtype=torch.float64),
            names=tuple(self._names),
            unique_tokens=sum(group.unique_tokens for group in self.groups if group is not FILLER),
        )
