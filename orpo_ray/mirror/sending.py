"""One pass: what the mirror lacks is sent, then the index, then what it no longer names is removed.

A pass sends the run as it is when the pass begins. Its files are kept by a hard link each as long as they are on their way, so
that a checkpoint which is pruned meanwhile still arrives, and what waits is never more than one state of the run.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from orpo_ray.config.layout import RunLayout
from orpo_ray.mirror.claim import Claim
from orpo_ray.mirror.contents import Item, contents
from orpo_ray.mirror.index import FILES, Entry, Index, Note, Seen, write_index
from orpo_ray.mirror.place import CHUNK, Heard, Place
from orpo_ray.mirror.pool import Look, transfer

# A line may be half written where a file grows by lines.
_LINES = ".jsonl"
_LOOKS = 5


@dataclass(frozen=True)
class Sent:
    """What a pass sent."""

    files: int = 0
    bytes: int = 0


class Sender:
    """Brings a mirror up to date, as often as it is asked to.

    Args:
        place: of this run.
        claim: this driver's.
        index: as the mirror has it.
        note: as this storage has it.
        heard: called whenever something got through.

    Attributes:
        index: as the mirror has it now.
    """

    def __init__(
        self, place: Place, layout: RunLayout, claim: Claim, index: Index, note: Note, heard: Heard = lambda: None
    ) -> None:
        self._place, self._files, self._layout, self._claim = place, place.below(FILES), layout, claim
        self._note, self._heard = note, heard
        self.index, self._begun = index, "the index"
        self._failed: str | None = None
        # Sent, and not named by an index yet, with their digests: a pass that fails has not sent them for nothing.
        self._arrived: dict[str, str] = {}
        # To be removed; None until the first pass has looked for what an earlier driver left.
        self._unnamed: set[str] | None = None

    @property
    def waits_for(self) -> str:
        """Path of the file that did not get there in the last pass, or that was begun last."""
        return self._failed or self._begun

    def send(self, stores: Collection[Path], look: Look) -> Sent:
        """One pass.

        Args:
            stores: trace stores that the run is making.
            look: called again and again; what it raises ends the pass.

        Raises:
            OSError: the store does not answer, or a file cannot be read.
            TakenOverError: the mirror is another driver's.
        """
        self._failed = None
        with self._held(stores) as items:
            files: dict[str, Entry] = {}
            sent: list[int] = []
            transfer((partial(self._keep, item, files, sent) for item in items), look)
            self._commit(files)
        self._tidy(look)
        return Sent(len(sent), sum(sent))

    @contextmanager
    def _held(self, stores: Collection[Path]) -> Iterator[list[Item]]:
        """The run's files, those to be sent by a link of their own."""
        outgoing = self._layout.outgoing
        try:
            for look in range(_LOOKS):
                shutil.rmtree(outgoing, ignore_errors=True)
                outgoing.mkdir()
                try:
                    state = _link(self._layout.state, outgoing / "run.json", copy=True)
                    found = contents(self._layout, state, self.index.files, stores)
                    items = [self._linked(item, outgoing / str(place)) for place, item in enumerate(found)]
                    break
                except FileNotFoundError:  # something was pruned while it was looked at
                    if look == _LOOKS - 1:
                        raise
            yield items
        finally:
            shutil.rmtree(outgoing, ignore_errors=True)

    def _linked(self, item: Item, link: Path) -> Item:
        if self._is_there(item):
            return item
        file = _link(item.file, link, copy=False)
        stat = file.stat()
        return replace(item, file=file, size=stat.st_size, changed_ns=stat.st_mtime_ns)

    def _is_there(self, item: Item) -> bool:
        seen, entry = self._note.seen.get(item.path), self.index.files.get(item.path)
        return (
            seen is not None
            and entry is not None
            and (seen.size, seen.changed_ns, seen.digest) == (item.size, item.changed_ns, entry.digest)
        )

    def _keep(self, item: Item, files: dict[str, Entry], sent: list[int]) -> None:
        """Put a file's entry into `files`, and the file into the mirror where it is not."""
        known = self.index.files.get(item.path)
        if known is not None and self._is_there(item):
            files[item.path] = known
            return
        self._begun = item.path
        size = _whole_lines(item) if item.path.endswith(_LINES) else item.size
        with item.file.open("rb") as file:
            digest = _Digested(file, size)
            while digest.read(CHUNK):
                pass
        self._note.seen[item.path] = Seen(item.size, item.changed_ns, digest.hex())
        if known is not None and (known.size, known.digest) == (size, digest.hex()):
            files[item.path] = known
            return
        target = self.index.object_for(item.path, digest.hex())
        if self._arrived.get(target) != digest.hex():
            try:
                self._send(item, size, target, digest.hex())
            except OSError:
                self._failed = item.path
                raise
            sent.append(size)
        files[item.path] = Entry(target, size, digest.hex())

    def _send(self, item: Item, size: int, target: str, expected: str) -> None:
        self._arrived.pop(target, None)
        with item.file.open("rb") as file:
            source = _Digested(file, size)
            self._files.write(target, source, size, self._heard)
        if source.hex() != expected:
            raise OSError(f"{item.path} changed while it was sent")
        self._arrived[target] = expected

    def _commit(self, files: dict[str, Entry]) -> None:
        """Let the index name `files`, now that all of them are there."""
        note = self._note
        for gone in note.seen.keys() - files.keys():
            del note.seen[gone]
        if files == self.index.files and note.line:
            return
        self._claim.check()
        new = self.index.next(self._layout.storage, files)
        note.line, note.commits = new.line, [*note.commits[:1], new.commit]
        note.save(self._layout.mirrored)
        write_index(self._place, new)
        note.number, note.commits = new.number, [new.commit]
        note.save(self._layout.mirrored)
        left = (
            self._files.names()
            if self._unnamed is None
            else self._unnamed | self.index.objects() | self._arrived.keys()
        )
        self._unnamed = set(left) - new.objects()
        self._arrived.clear()
        self.index = new
        self._heard()

    def _tidy(self, look: Look) -> None:
        """Remove what the index no longer names. What cannot be removed now is once the next pass comes."""
        files, directories = unneeded(self._unnamed or (), self.index.objects())
        try:
            transfer((partial(self._files.remove_directory, name) for name in directories), look)
            transfer((partial(self._files.remove, name) for name in files), look)
        except OSError:
            return
        self._unnamed = set() if self._unnamed is not None else None


def unneeded(unnamed: Collection[str], named: Collection[str]) -> tuple[set[str], set[str]]:
    """What to remove, as single files, and as directories below which nothing is named.

    A store that has no directories gets an empty object in the place of one whose files were removed one by one.
    """
    needed = {str(parent) for name in named for parent in PurePosixPath(name).parents}
    files, directories = set(), set()
    for name in unnamed:
        above = [str(parent) for parent in PurePosixPath(name).parents if str(parent) not in needed]
        if above and above[-1] != ".":
            directories.add(above[-1])
        else:
            files.add(name)
    return files, directories


class _Digested:
    """The first `size` bytes of a file, with the digest of what was read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size
        self._digest = hashlib.blake2b(digest_size=16)

    def read(self, count: int) -> bytes:
        chunk = self._file.read(min(count, self._left))
        self._left -= len(chunk)
        self._digest.update(chunk)
        return chunk

    def hex(self) -> str:
        return self._digest.hexdigest()


def _whole_lines(item: Item) -> int:
    """Bytes up to the end of the last whole line."""
    with item.file.open("rb") as file:
        end = item.size
        while end:
            begin = max(0, end - 65536)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    return 0


def _link(file: Path, link: Path, *, copy: bool) -> Path:
    """Another name for the file's content; where there are no hard links, a copy or the file itself."""
    try:
        os.link(file, link)
    except FileNotFoundError:
        raise
    except OSError:
        if not copy:
            return file
        shutil.copy2(file, link)
    return link
