"""The base of tasks whose rows are the records of a data set."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

from orpo_ray.errors import DataError
from orpo_ray.tasks.records import Record, is_file, read_records
from orpo_ray.tasks.splits import NO_OTHERS, OtherSplits, SplitSize, part_of
from orpo_ray.tasks.task import Row, Task


class RecordTask(Task):
    """Rows from a file or the hub. A file is read, and each of its records checked, when the task is made."""

    hub: ClassVar[str]
    """The data set on the hub, `owner/name:config`, that is read where no path is given."""
    id_field: ClassVar[str | None] = None

    def __init__(
        self,
        path: str | None = None,
        *,
        split: str = "train",
        sizes: Mapping[str, SplitSize] | None = None,
        seed: int = 0,
        others: OtherSplits = NO_OTHERS,
    ) -> None:
        if sizes is not None and split not in sizes:
            raise DataError(f"task {self.name!r}: split {split!r} is none of the parts {', '.join(sizes)}")
        self.path, self.split = self.hub if path is None else str(path), split
        self._sizes, self._seed, self._others = sizes, seed, others
        self._rows: list[Row] | None = None
        # The hub is asked only when the rows are: a task may be made for its verifier alone, where there is no network.
        if is_file(self.path):
            self.rows()

    def rows(self) -> list[Row]:
        if self._rows is None:
            # Where several parts are to be cut from one hub data set, its training split is the pool.
            alone = self._sizes is None or set(self._sizes) == {self.split}
            source_split = self.split if alone else "train"
            rows = identify(self._checked(read_records(self.path, source_split)), self.split, self.id_field)
            self._rows, self.left_out = part_of(rows, self.split, self._sizes, self._seed, self._others)
        return self._rows

    @abstractmethod
    def check(self, data: Mapping[str, Any], where: str) -> None:
        """Raises DataError, beginning with `where`, unless `data` has every field that the task uses, well formed."""

    def _checked(self, records: Iterable[Record]) -> Iterable[Mapping[str, Any]]:
        for record in records:
            self.check(record.data, record.where)
            yield record.data

    def __getstate__(self) -> dict[str, Any]:
        # Actors get their rows as blocks; the task that is sent to them carries none.
        return {**self.__dict__, "_rows": None}


def identify(records: Iterable[Mapping[str, Any]], split: str, id_field: str | None) -> list[Row]:
    """Rows with ids: the record's own where it has one, else a hash of its content.

    Where several records would get one id, the second becomes `<id>#2`, the third `<id>#3`: exact copies keep distinct ids.
    """
    rows: list[Row] = []
    seen: set[str] = set()
    copies: dict[str, int] = {}
    for data in records:
        own = data.get(id_field) if id_field else None
        base = _content_id(data) if own in (None, "") else str(own)
        row_id = base
        while row_id in seen:
            copies[base] = copies.get(base, 1) + 1
            row_id = f"{base}#{copies[base]}"
        seen.add(row_id)
        rows.append(Row(row_id, split, data))
    return rows


def _content_id(data: Mapping[str, Any]) -> str:
    content = json.dumps(data, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def text_field(data: Mapping[str, Any], field: str, where: str) -> str:
    """A field that must hold text. Raises DataError where it is missing, of another type, or blank."""
    value = present(data, field, where)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: field {field!r} must be text, not {value!r}")
    return value


def present(data: Mapping[str, Any], field: str, where: str) -> object:
    """A field that must be there. Raises DataError, listing the fields that are."""
    if data.get(field) is None:
        there = ", ".join(repr(name) for name in data) or "none"
        raise DataError(f"{where}: missing field {field!r}; the fields there are {there}")
    return cast(object, data[field])
