"""Which of a run's traces or pairs a person wants to see."""

from dataclasses import dataclass

from orpo_ray.errors import InputError
from orpo_ray.report.browse import PairRow, TraceRow


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; None is open."""

    low: float | None
    high: float | None

    @classmethod
    def parse(cls, option: str, text: str) -> "Range":
        """From `3`, `3..8`, `3..` or `..8`.

        Raises:
            InputError: it is none of these; names `option`.
        """
        low, dots, high = text.partition("..")
        try:
            bounds = [float(bound) if bound.strip() else None for bound in ((low, high) if dots else (low, low))]
        except ValueError:
            bounds = [None, None]
        given = [bound for bound in bounds if bound is not None]
        if not given or given != sorted(given):
            raise InputError(f"{option} {text}: give a number or a range, as 3, 3..8, 3.. or ..8")
        return cls(bounds[0], bounds[1])

    def holds(self, value: float | None) -> bool:
        """Whether `value` lies in it; a value that there is none of does not."""
        if value is None:
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class Filters:
    """Every condition that is not None must hold. For pairs, verdict, truncated and tokens are the rejected trace's."""

    source: str | None = None
    verdict: str | None = None
    truncated: bool | None = None
    kept: bool | None = None
    version: Range | None = None
    epoch: Range | None = None
    prompt_id: str | None = None
    search: str | None = None
    overlap: Range | None = None
    tokens: Range | None = None

    def match(self, row: TraceRow | PairRow) -> bool:
        """Whether `row` is wanted. `search` finds any part of prompt or trace, whatever the case."""
        if isinstance(row, TraceRow):
            kept: bool | None = row.kept
            tokens: int | None = row.tokens
            texts = [row.prompt, row.text]
        else:
            kept, tokens, texts = True, row.rejected_tokens, [row.prompt, row.chosen, row.rejected]
        wanted = (
            (self.source, row.source),
            (self.verdict, row.verdict),
            (self.truncated, row.truncated),
            (self.kept, kept),
            (self.prompt_id, row.prompt_id),
        )
        ranges = (
            (self.version, row.version),
            (self.epoch, row.epoch),
            (self.overlap, row.overlap),
            (self.tokens, tokens),
        )
        return (
            all(want is None or want == is_ for want, is_ in wanted)
            and all(range_ is None or range_.holds(value) for range_, value in ranges)
            and (self.search is None or any(self.search.lower() in text.lower() for text in texts if text))
        )
