"""Where a mirror lies: an object store or a directory, through pyarrow's file systems, or fsspec's where it has none."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, PyFileSystem, S3FileSystem, resolve_s3_region

from orpo_ray.errors import InputError

CHUNK = 8 << 20
"""Bytes that are read, and sent, at a time."""

Heard = Callable[[], None]
T = TypeVar("T")
_CHANCES = 3


class Source(Protocol):
    """What is sent."""

    def read(self, count: int, /) -> bytes: ...


class Place:
    """The files below one URL. Names are relative to it, with slashes.

    Every method raises OSError where the store does not answer or refuses. A file appears when it is whole, as objects do;
    `replace` promises it of a directory too.

    Args:
        url: for messages.
        filesystem: that the files lie on.
        base: the URL's path there.
    """

    def __init__(self, url: str, filesystem: FileSystem, base: str) -> None:
        self.url = url
        self._files, self._base = filesystem, base.rstrip("/")
        self._renames = filesystem.type_name == "local"

    def below(self, name: str) -> "Place":
        """The files below `name`."""
        return Place(_joined(self.url, name), self._files, f"{self._base}/{name}")

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none.

        A store is asked for its length first, and then for so many bytes: of a file that is replaced by a longer one between
        the two they would be the beginning.
        """
        path = self._path(name)
        for _ in range(_CHANCES):
            try:
                with self._files.open_input_stream(path) as stream:
                    content: bytes = stream.read()
            except FileNotFoundError:
                return None
            if self._files.get_file_info(path).size == len(content):
                return content
        raise OSError(f"{name} is replaced faster than it can be read")

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file, CHUNK bytes at a time.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._files.open_input_stream(self._path(name)) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def write(self, name: str, source: Source, size: int, heard: Heard = lambda: None) -> None:
        """Send `size` bytes of `source`.

        Args:
            heard: called whenever a part has got through.

        Raises:
            OSError: also where the source is shorter; what is then there is of no use to anyone.
        """
        path = self._path(name)
        self._make_room(path)
        left = size
        with self._files.open_output_stream(path) as stream:
            while left:
                chunk = source.read(min(CHUNK, left))
                if not chunk:
                    raise OSError(f"the file became shorter while it was sent, by {left} bytes")
                stream.write(chunk)
                if left < size:  # the first chunk may only have been put by
                    heard()
                left -= len(chunk)
        heard()

    def replace(self, name: str, content: bytes) -> None:
        """Write a small file that a reader sees as it was or as it is."""
        path = self._path(name)
        self._make_room(path)
        target = f"{path}.partial" if self._renames else path
        with self._files.open_output_stream(target) as stream:
            stream.write(content)
        if self._renames:
            self._files.move(target, path)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is as good."""
        try:
            self._files.delete_file(self._path(name))
        except FileNotFoundError:
            return

    def remove_directory(self, name: str) -> None:
        """Remove all below `name`; nothing there is as good."""
        try:
            self._files.delete_dir(self._path(name))
        except FileNotFoundError:
            return

    def names(self) -> set[str]:
        """All files."""
        listed = self._files.get_file_info(FileSelector(self._base, recursive=True, allow_not_found=True))
        cut = len(self._base) + 1
        return {info.path[cut:] for info in listed if info.type is FileType.File}

    def check(self) -> None:
        """Whether files can be written here, read again and removed.

        Raises:
            InputError: they cannot; says why, and what would help.
        """
        name, content = f".orpo-ray-check-{uuid.uuid4().hex[:8]}", b"orpo-ray"

        def use() -> None:
            self.replace(name, content)
            if self.read(name) != content:
                raise OSError("what was written is not what is read")
            self.remove(name)

        tried(self.url, use)

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _make_room(self, path: str) -> None:
        # An object store has no directories, and asking for each would cost as much as the files do.
        if self._renames:
            self._files.create_dir(path.rpartition("/")[0], recursive=True)


def open_place(url: str) -> Place:
    """The place at a mirror's URL. Nothing is asked of it yet.

    Raises:
        InputError: no file system is known for such a URL, or its package is not installed.
    """
    try:
        return Place(url, *_filesystem(url))
    except (pa.ArrowInvalid, ValueError, ImportError) as error:
        raise InputError(
            f"storage.mirror: {url} cannot be opened ({first_line(error)}); take s3://bucket/prefix, gs://bucket/prefix, "
            "file:///directory, or another URL whose fsspec package is installed"
        ) from None


def tried(url: str, call: Callable[[], T]) -> T:
    """What a call of the store returns; a passing fault is given another chance.

    Raises:
        InputError: it fails for good; says why, and what would help.
    """
    for attempt in range(_CHANCES):
        try:
            return call()
        except OSError as error:
            if attempt == _CHANCES - 1 or any(sign in str(error) for sign in _LASTING):
                raise InputError(f"storage.mirror: {url} {_cause_and_cure(error)}") from None
            time.sleep(attempt + 1)
    raise AssertionError("the last chance returns or raises")


def first_line(error: BaseException) -> str:
    """A store's error without its details."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _filesystem(url: str) -> tuple[FileSystem, str]:
    parts = urlsplit(url)
    if parts.scheme == "s3":
        # In the background it would take a whole file into memory where the network is slower than the disk. Opened late, a
        # small file is one request and not three.
        options = dict(parse_qsl(parts.query))
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:  # pyarrow looks at it only where it reads the URL
            options.setdefault("endpoint_override", endpoint)
        options.setdefault("region", _region(parts.netloc, amazons="endpoint_override" not in options))
        return S3FileSystem(background_writes=False, allow_delayed_open=True, **options), f"{parts.netloc}{parts.path}"
    try:
        opened: tuple[FileSystem, str] = FileSystem.from_uri(url)
        return opened
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    filesystem, path = url_to_fs(url)
    return PyFileSystem(FSSpecHandler(filesystem)), path


def _region(bucket: str, *, amazons: bool) -> str:
    """A bucket's region; of a store that is not Amazon's any will do."""
    given = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if amazons and not given:
        with suppress(OSError):  # the bucket's own calls say better what is wrong
            return str(resolve_s3_region(bucket))
    return given or "us-east-1"


def _cause_and_cure(error: OSError) -> str:
    text = str(error)
    fitting = (both for sign, both in _CURES.items() if sign in text)
    found, cure = next(fitting, ("cannot be used", "give a directory or a bucket that this user may write to"))
    return f"{found} ({first_line(error)}); {cure}"


# What a store's message has in it, what that means, and what would help.
_CURES = {
    "NO_SUCH_BUCKET": ("is in no bucket that is there", "make it, or correct the URL"),
    "ACCESS_DENIED": ("is refused", "the credentials need to list, read, write and delete below that prefix"),
    "INVALID_ACCESS_KEY_ID": (
        "is refused to an unknown key",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role",
    ),
    "SIGNATURE_DOES_NOT_MATCH": ("is refused to a wrong key", "check AWS_SECRET_ACCESS_KEY"),
    "NETWORK_CONNECTION": (
        "cannot be reached",
        "check AWS_ENDPOINT_URL or endpoint_override, the region, and the way there",
    ),
    "No space left": ("is full", "free some room, or give another place"),
}
_LASTING = [*(sign for sign in _CURES if sign != "NETWORK_CONNECTION"), "Errno"]


def _joined(url: str, name: str) -> str:
    path, question, query = url.partition("?")
    return f"{path.rstrip('/')}/{name}{question}{query}"
