"""What a set of traces amounts to, in numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from orpo_ray.traces.record import Trace


@dataclass(frozen=True)
class TraceCounts:
    """Counts over prompts and their traces; they add up.

    Attributes:
        near_duplicates: traces dropped because they overlap a kept one too much.
        prompts_without_kept: prompts of which no trace counts, those without any trace among them.
    """

    prompts: int = 0
    traces: int = 0
    right: int = 0
    wrong: int = 0
    unparsed: int = 0
    truncated: int = 0
    kept: int = 0
    near_duplicates: int = 0
    prompts_without_kept: int = 0

    @classmethod
    def of(cls, traces: Sequence[Trace], prompts: int) -> "TraceCounts":
        """Count all the traces of `prompts` prompts."""
        return cls(
            prompts=prompts,
            traces=len(traces),
            right=sum(trace.verdict == "right" for trace in traces),
            wrong=sum(trace.verdict == "wrong" for trace in traces),
            unparsed=sum(trace.verdict == "unparsed" for trace in traces),
            truncated=sum(trace.truncated for trace in traces),
            kept=sum(trace.kept for trace in traces),
            near_duplicates=sum(trace.near_duplicate for trace in traces),
            prompts_without_kept=prompts - len({trace.prompt_id for trace in traces if trace.kept}),
        )

    def __add__(self, other: "TraceCounts") -> "TraceCounts":
        return TraceCounts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def accuracy(self) -> float:
        """Right traces over all traces; NaN where there is none."""
        return self.right / self.traces if self.traces else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the accuracy (None where there is no trace)."""
        return asdict(self) | {"accuracy": self.accuracy if self.traces else None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TraceCounts":
        return cls(**{field.name: int(data[field.name]) for field in fields(cls)})
