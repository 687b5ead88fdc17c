"""Reads the records of a data set: a JSON Lines or Parquet file, or a data set on the Hugging Face hub."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from orpo_ray.errors import DataError

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?")


@dataclass(frozen=True)
class Record:
    """One record as read, and where: `file:line`, `file:row N` or `name[split]:row N` (all from 1), for error messages."""

    data: Mapping[str, Any]
    where: str


def is_file(path: str) -> bool:
    """Whether `path` means a file: by its suffix, or because a file lies there. Otherwise it is a name on the hub."""
    return PurePosixPath(path).suffix in (*_JSON_LINES, ".parquet") or not _HUB_NAME.fullmatch(path) or _exists(path)


def read_records(path: str, split: str) -> Iterator[Record]:
    """The records of `path`, in its order.

    Args:
        path: a file, local or at an fsspec URL (`s3://…`), or `owner/name` or `owner/name:config` on the hub.
        split: the split to load, for a data set on the hub; a file is one split.

    Raises:
        DataError: missing, empty, broken, or not of a known format; names file and line.
    """
    if not is_file(path):
        records = _hub(path, split)
    elif not _exists(path):
        raise DataError(f"{path}: no such file")
    elif path.endswith(".parquet"):
        records = _parquet(path)
    elif path.endswith(_JSON_LINES):
        records = _json_lines(path)
    else:
        raise DataError(f"{path}: not a known format; give a .jsonl or .parquet file, or owner/name on the hub")
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        raise DataError(f"{path}: holds no rows")


def _exists(path: str) -> bool:
    import fsspec  # type: ignore[import-untyped]

    filesystem, inner = fsspec.url_to_fs(path)
    return bool(filesystem.isfile(inner))


def _open(path: str) -> IO[bytes]:
    import fsspec

    try:
        opened: IO[bytes] = fsspec.open(path, "rb").open()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return opened


def _json_lines(path: str) -> Iterator[Record]:
    with _open(path) as file:
        # Lines of bytes end at \n alone; str.splitlines would also cut at U+2028 inside a string.
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            if line.strip():
                yield Record(_json_object(line, where), where)


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8: {error.reason} at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: broken JSON: {error.msg} at column {error.colno}; one object a line is right"
        ) from error
    except RecursionError:
        raise DataError(f"{where}: broken JSON: nested too deep") from None
    if not isinstance(data, dict):
        raise DataError(f"{where}: a JSON object is right, not {_kind(data)}; one object a line")
    return data


def _kind(value: object) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def _parquet(path: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _open(path) as file:
        try:
            number = 0
            for batch in pq.ParquetFile(file).iter_batches():
                for data in batch.to_pylist():
                    number += 1
                    yield Record(data, f"{path}:row {number}")
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: broken Parquet: {error}") from error


def _hub(path: str, split: str) -> Iterator[Record]:
    import datasets

    match = _HUB_NAME.fullmatch(path)
    assert match is not None
    try:
        rows = datasets.load_dataset(match["name"], match["config"], split=split)
    except Exception as error:  # the library raises its own, the hub client's and the network's errors
        raise DataError(
            f"{path}: not a file here, and split {split!r} did not load from the Hugging Face hub: "
            f"{type(error).__name__}: {error}"
        ) from error
    for number, data in enumerate(rows, start=1):
        yield Record(data, f"{path}[{split}]:row {number}")
