"""Rows of a dataclass into a file: JSON lines, Parquet or CSV, a chunk in memory at a time."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from orpo_ray.errors import InputError

_CHUNK = 1024


def write_rows(file: Path, kind: type, rows: Iterable[Any]) -> int:
    """Write `rows`, instances of the dataclass `kind`; the file's suffix says how. Returns how many there were.

    The file appears by rename once it is whole.

    Raises:
        InputError: a suffix that is none of .jsonl, .parquet and .csv, or a place that cannot be written.
    """
    writer = _WRITERS.get(file.suffix)
    if writer is None:
        raise InputError(f"{file}: the suffix says how traces are written; take {', '.join(_WRITERS)}")
    partial = file.with_name(f"{file.name}.partial")
    counted = _Counted(rows)
    try:
        writer(partial, kind, counted)
        partial.replace(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return counted.count


class _Counted:
    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows, self.count = rows, 0

    def __iter__(self) -> Iterator[Any]:
        for row in self._rows:
            self.count += 1
            yield row


def _jsonl(file: Path, kind: type, rows: Iterable[Any]) -> None:
    with file.open("w", encoding="utf-8") as opened:
        opened.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def _csv(file: Path, kind: type, rows: Iterable[Any]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, [field.name for field in fields(kind)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _parquet(file: Path, kind: type, rows: Iterable[Any]) -> None:
    schema = arrow_schema(kind)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        iterator = iter(rows)
        while chunk := list(islice(iterator, _CHUNK)):
            writer.write_table(pa.Table.from_pylist([asdict(row) for row in chunk], schema=schema))


def arrow_schema(kind: type) -> pa.Schema:
    """The Arrow types of a dataclass of plain values, so that a column without a single value has its type all the same."""
    arrow = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    columns = []
    for name, hint in get_type_hints(kind).items():
        kinds = [arrow[plain] for plain in (bool, int, float) if plain in {hint, *getattr(hint, "__args__", ())}]
        columns.append((name, kinds[0] if kinds else pa.string()))
    return pa.schema(columns)


_WRITERS: dict[str, Callable[[Path, type, Iterable[Any]], None]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".csv": _csv,
}
