"""How the rows of a global batch are shared by ranks and cut into micro-batches: by tokens, by one rule for all.

The stream decides which rank receives a row, and rows differ in length: ranks would wait for the one with the long
rows at every micro-step. So ranks tell each other their rows, each works out the same plan, and each takes its part.
The loss does not notice: a pair's weight is its share of the *global* batch.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from orpo_ray.training.batching import TokenGroup, split

Plan = list[list[list[int]]]
"""For each rank, for each micro-step, the indices of its groups."""


@dataclass(frozen=True)
class Share:
    """One rank's part of a global batch.

    Attributes:
        micro_batches: what it computes, equally many for each rank and at least one; one may be empty.
        rows: indices of the rows that the rank answers for, ascending: each row of the global batch is in one share. A
            row that was split is the rank's that trains its first pairs; rows of weight 0, trained by none, go round.
    """

    micro_batches: list[list[TokenGroup]]
    rows: list[int]

    @property
    def tokens(self) -> int:
        """Unique tokens of all its micro-batches."""
        return sum(group.unique_tokens for groups in self.micro_batches for group in groups)


def share_batch(
    groups: Sequence[TokenGroup], ranks: int, token_budget: int, max_rows: int | None = None
) -> list[Share]:
    """Share a global batch.

    Args:
        groups: every row of the global batch, in the same order on every rank. Rows of weight 0 are dropped; a group
            over the budget is split by its pairs.
        ranks: how many share.
        token_budget: most tokens of one rank's micro-batch, prompts counted once.
        max_rows: most groups of one rank's micro-batch; None for any number.

    Returns:
        Each rank's share.
    """
    parts: list[TokenGroup] = []
    first: dict[int, int] = {}
    for row, group in enumerate(groups):
        if group.weight > 0:
            first[len(parts)] = row
            parts += split(group, token_budget)
    plan = plan_micro_batches([part.unique_tokens for part in parts], ranks, token_budget, max_rows)
    return [
        Share(
            micro_batches=[[parts[index] for index in indices] for indices in micro_steps],
            rows=sorted(
                [first[index] for indices in micro_steps for index in indices if index in first]
                + [row for row, group in enumerate(groups) if group.weight == 0 and row % ranks == rank]
            ),
        )
        for rank, micro_steps in enumerate(plan)
    ]


def token_balance(shares: Sequence[Share]) -> float:
    """Fullest over mean rank in tokens, as a mean over micro-steps that weighs each by its tokens; 1 is perfect."""
    loads = [
        [sum(group.unique_tokens for group in groups) for groups in side_by_side]
        for side_by_side in zip(*(share.micro_batches for share in shares), strict=True)
    ]
    total = sum(map(sum, loads))
    return sum(map(max, loads)) * len(shares) / total if total else 1.0


def plan_micro_batches(sizes: Sequence[int], ranks: int, token_budget: int, max_rows: int | None = None) -> Plan:
    """Place groups of these sizes, in tokens, on ranks and micro-steps: as few steps as fit, loads as equal as can be.

    Longest first into the emptiest bin (Graham's LPT rule), then the fullest bins side by side in one micro-step:
    ranks wait for each other in every micro-step, so what counts is the spread within it.

    Raises:
        ValueError: a budget, limit or number of ranks below 1.
    """
    if ranks < 1 or token_budget < 1 or (max_rows is not None and max_rows < 1):
        raise ValueError(f"ranks {ranks}, token_budget {token_budget} and max_rows {max_rows} must be at least 1")
    at_least = -(-sum(sizes) // token_budget)
    if max_rows is not None:
        at_least = max(at_least, -(-len(sizes) // max_rows))
    micro_steps = max(1, -(-at_least // ranks))
    while True:
        bins = _longest_first(sizes, ranks * micro_steps, max_rows)
        if bins is not None and all(_load(sizes, held) <= token_budget or len(held) == 1 for held in bins):
            break
        micro_steps += 1
    bins.sort(key=lambda held: (-_load(sizes, held), held))
    plan: Plan = [[] for _ in range(ranks)]
    for step in range(micro_steps):
        side_by_side = bins[step * ranks : (step + 1) * ranks]
        # Fullest bin to the rank with the least so far: no rank is the slow one in every step.
        by_total = sorted(range(ranks), key=lambda rank: (sum(_load(sizes, held) for held in plan[rank]), rank))
        for rank, held in zip(by_total, side_by_side, strict=True):
            plan[rank].append(held)
    return plan


def _longest_first(sizes: Sequence[int], count: int, max_rows: int | None) -> list[list[int]] | None:
    """Groups in `count` bins, or None if `max_rows` leaves no room."""
    bins: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, number) for number in range(count)]
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        if not emptiest:
            return None
        load, number = heapq.heappop(emptiest)
        bins[number].append(index)
        if max_rows is None or len(bins[number]) < max_rows:
            heapq.heappush(emptiest, (load + sizes[index], number))
    return [sorted(held) for held in bins]


def _load(sizes: Sequence[int], held: Sequence[int]) -> int:
    return sum(sizes[index] for index in held)
