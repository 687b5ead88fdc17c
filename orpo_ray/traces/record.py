"""A trace: one sampled chain of thought with its verdict, and where it came from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa

Source = Literal["teacher", "student"]

SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("near_duplicate", pa.bool_(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.int32(), nullable=False),
        pa.field("seed", pa.int64()),
        pa.field("temperature", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Trace:
    """One trace of one prompt, as the store keeps it.

    Attributes:
        prompt_id: the id of the task's row.
        sample: which of the prompt's traces it is, 0 to k - 1.
        text: the completion, without the prompt.
        token_ids: the sampler's own token ids, end token included; None where the sampler gave text alone (a teacher).
        verdict: `right`, `wrong` or `unparsed`, as `Task.classify` says.
        truncated: cut by the token limit, so it has no end.
        kept: it counts: a positive (teacher) or a negative (student).
        near_duplicate: it would count, but overlaps a kept trace of its prompt too much.
        source: whose trace it is.
        model: what the model was, as `model_fingerprint` says.
        version: published version of the student; 0 for the initial one, and for a teacher.
        seed: seed of the request that sampled it, None where there was none. vLLM samples trace i with seed + i.
        temperature: sampling temperature, None where it is not known.
    """

    prompt_id: str
    sample: int
    text: str
    token_ids: list[int] | None
    verdict: str
    truncated: bool
    kept: bool
    near_duplicate: bool
    source: Source
    model: str
    version: int = 0
    seed: int | None = None
    temperature: float | None = None


def to_table(traces: Sequence[Trace]) -> pa.Table:
    """Traces as one Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist([asdict(trace) for trace in traces], schema=SCHEMA)


def from_table(table: pa.Table) -> list[Trace]:
    """The traces of an Arrow table."""
    return [Trace(**row) for row in table.select(SCHEMA.names).to_pylist()]
