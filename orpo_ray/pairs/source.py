"""The pair source: every prompt that has a right teacher trace, with its positives and its initial negatives.

One Arrow file, memory-mapped by each sampler: a row is read when it is asked for, so memory does not grow with the data.
All token ids are the student's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("row", pa.string()),
        ("prompt", pa.list_(pa.int32())),
        ("positives", pa.list_(pa.list_(pa.int32()))),
        ("negatives", pa.list_(pa.list_(pa.int32()))),
    ]
)
_FILE = "source.arrow"
_CHUNK = 1024


@dataclass(frozen=True)
class SourcePrompt:
    """One prompt of the pair source.

    Attributes:
        row: the task's row as JSON, for the verifier.
        prompt: token ids of the rendered prompt.
        positives: token ids of each right teacher trace, end token included.
        negatives: token ids of each wrong trace of the initial student, as the sampler made them.
    """

    prompt_id: str
    row: str
    prompt: list[int]
    positives: list[list[int]]
    negatives: list[list[int]]


def write_pair_source(directory: Path, prompts: Iterable[SourcePrompt]) -> int:
    """Write the source, `directory/source.arrow`, by rename; returns the number of prompts."""
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / (_FILE + ".partial")
    count = 0
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        chunk: list[SourcePrompt] = []
        for prompt in prompts:
            chunk.append(prompt)
            if len(chunk) == _CHUNK:
                writer.write_batch(_batch(chunk))
                count += len(chunk)
                chunk = []
        if chunk:
            writer.write_batch(_batch(chunk))
            count += len(chunk)
    partial.rename(directory / _FILE)
    return count


class PairSource:
    """Random access to a written source."""

    def __init__(self, directory: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(directory / _FILE)))
        batches = self._reader.num_record_batches
        last = int(self._reader.get_batch(batches - 1).num_rows) if batches else 0
        self._rows: int = max(batches - 1, 0) * _CHUNK + last

    def __len__(self) -> int:
        return self._rows

    def prompt_id(self, position: int) -> str:
        """The id of the prompt at `position`."""
        return str(self._batch(position).column(0)[position % _CHUNK].as_py())

    def __getitem__(self, position: int) -> SourcePrompt:
        if not 0 <= position < self._rows:
            raise IndexError(position)
        row = self._batch(position).slice(position % _CHUNK, 1).to_pylist()[0]
        return SourcePrompt(**row)

    def _batch(self, position: int) -> pa.RecordBatch:
        # Every batch but the last has _CHUNK rows, so the batch is known without an index; reading maps, not copies.
        return self._reader.get_batch(position // _CHUNK)


def _batch(prompts: list[SourcePrompt]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([vars(prompt) for prompt in prompts], schema=SCHEMA)
