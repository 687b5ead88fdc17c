"""What the trainer trains on: one prompt with its traces and pairs, as token ids.

Everything here is plain Python over lists of ints: the tensors are made in `packing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orpo_ray.pairs import PairGroup

NO_REJECTED = -1
"""Rejected index of a pair that has no rejected trace: it is trained on by the SFT term alone."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class TokenGroup:
    """One prompt with its traces and the pairs made of them.

    Traces are listed once, however many pairs use them: P chosen and N rejected traces may make any number of pairs.

    Raises:
        ValueError: an empty prompt or trace, no pairs, an index that points nowhere, a negative weight.
    """

    prompt: Tokens
    """Token ids of the rendered prompt, at least one: the first token of a trace is predicted from the last of them."""
    chosen: tuple[Tokens, ...]
    """Right traces: completion tokens, the end token included where the trace was not cut."""
    rejected: tuple[Tokens, ...]
    """Wrong traces, in the same form."""
    pairs: tuple[tuple[int, int], ...]
    """(chosen index, rejected index or `NO_REJECTED`)."""
    weight: float = 1.0
    """Rows this group counts for: 1 for a real row, 0 for padding, a share for a part of a split group."""
    name: str = ""
    """What to call the group in a message, as its prompt id."""
    rejected_logp: tuple[float, ...] = field(default=())
    """The sampler's own mean log-probability of each rejected trace, NaN where not known; or empty."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError(f"group {self.name!r}: the prompt has no token")
        if not all(self.chosen) or not all(self.rejected):
            raise ValueError(f"group {self.name!r}: a trace has no token")
        if not self.pairs:
            raise ValueError(f"group {self.name!r}: no pairs")
        for chosen, rejected in self.pairs:
            if not 0 <= chosen < len(self.chosen) or not NO_REJECTED <= rejected < len(self.rejected):
                raise ValueError(f"group {self.name!r}: pair ({chosen}, {rejected}) points at no trace")
        if self.weight < 0:
            raise ValueError(f"group {self.name!r}: weight {self.weight} is negative")
        if self.rejected_logp and len(self.rejected_logp) != len(self.rejected):
            raise ValueError(f"group {self.name!r}: one sampler log-probability a rejected trace, or none at all")

    @classmethod
    def from_pair_group(cls, group: PairGroup) -> TokenGroup:
        """The trainer's view of a row of the stream."""
        return cls(
            prompt=tuple(group.prompt),
            chosen=tuple(map(tuple, group.chosen)),
            rejected=tuple(map(tuple, group.rejected)),
            pairs=tuple(zip(group.pair_chosen, group.pair_rejected, strict=True)),
            weight=1.0 if group.real else 0.0,
            name=group.prompt_id,
            rejected_logp=tuple(group.rejected_logp),
        )

    @property
    def traces(self) -> tuple[Tokens, ...]:
        """Chosen, then rejected traces: the order of branches everywhere in this room."""
        return self.chosen + self.rejected

    @property
    def unique_tokens(self) -> int:
        """Tokens of the prompt, once, and of every trace."""
        return len(self.prompt) + sum(map(len, self.traces))

    def keeping(self, pairs: Sequence[tuple[int, int]]) -> TokenGroup:
        """This group with only `pairs` of its pairs and the traces they use, at the same loss per pair."""
        chosen = sorted({c for c, _ in pairs})
        rejected = sorted({r for _, r in pairs if r != NO_REJECTED})
        place = {r: i for i, r in enumerate(rejected)} | {NO_REJECTED: NO_REJECTED}
        return replace(
            self,
            chosen=tuple(self.chosen[i] for i in chosen),
            rejected=tuple(self.rejected[i] for i in rejected),
            pairs=tuple((chosen.index(c), place[r]) for c, r in pairs),
            weight=self.weight * len(pairs) / len(self.pairs),
            rejected_logp=tuple(self.rejected_logp[i] for i in rejected) if self.rejected_logp else (),
        )

    def without_rejected(self) -> TokenGroup:
        """The same pairs as plain SFT rows, for objectives that need no rejected traces."""
        pairs = tuple((chosen, NO_REJECTED) for chosen, _ in self.pairs)
        return replace(self, rejected=(), pairs=pairs, rejected_logp=())


FILLER = TokenGroup(prompt=(0,), chosen=((0,),), rejected=(), pairs=((0, NO_REJECTED),), weight=0.0, name="filler")
"""What a rank without work in a micro-step computes, so that it takes part in the collectives: loss exactly 0."""


@dataclass(frozen=True)
class Truncation:
    """How much was cut."""

    prompts: int = 0
    traces: int = 0

    def __add__(self, other: Truncation) -> Truncation:
        return Truncation(self.prompts + other.prompts, self.traces + other.traces)


def truncate(group: TokenGroup, max_length: int) -> tuple[TokenGroup, Truncation]:
    """Cut a group to at most `max_length` tokens of prompt plus trace; a trace keeps at least one token.

    The longest trace may claim half of `max_length`, the prompt the rest. The prompt loses its beginning, so that it
    still ends where the answer starts; a trace loses its end, and with it the end token: a cut trace must not teach
    the student to stop there.

    Args:
        max_length: in tokens, at least 2.

    Returns:
        The group, the same object where nothing was cut, and what was cut.
    """
    if max_length < 2:
        raise ValueError(f"max_length {max_length} leaves no room for a prompt and an answer; at least 2")
    longest = max(map(len, group.traces))
    prompt_room = max_length - min(longest, max_length // 2)
    prompt = group.prompt[-prompt_room:]
    trace_room = max_length - len(prompt)
    cut = Truncation(
        prompts=int(len(prompt) < len(group.prompt)), traces=sum(len(trace) > trace_room for trace in group.traces)
    )
    if cut == Truncation():
        return group, cut
    shorter = replace(
        group,
        prompt=prompt,
        chosen=tuple(trace[:trace_room] for trace in group.chosen),
        rejected=tuple(trace[:trace_room] for trace in group.rejected),
    )
    return shorter, cut


def split(group: TokenGroup, token_budget: int) -> list[TokenGroup]:
    """Cut a group of many pairs into parts of at most `token_budget` tokens; their losses add up to the group's.

    Pairs keep their order. A single pair over the budget stays whole.
    """
    if group.unique_tokens <= token_budget or len(group.pairs) == 1:
        return [group]
    parts: list[TokenGroup] = []
    start = 0
    for end in range(1, len(group.pairs) + 1):
        last = end == len(group.pairs)
        if last or group.keeping(group.pairs[start : end + 1]).unique_tokens > token_budget:
            parts.append(group.keeping(group.pairs[start:end]))
            start = end
    return parts
