"""Where a mirror lies: which URLs are taken, and what is said of a place that cannot be used."""

import uuid
from pathlib import Path

import pytest

from orpo_ray.errors import InputError
from orpo_ray.mirror.place import Place, explained, open_place
from tests.unit.mirror.made_up import FakeFailingStore


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_files_come_back_and_go(tmp_path: Path, kind: str) -> None:
    """A directory by pyarrow, and a store that only fsspec knows."""
    place = open_place(tmp_path.as_uri() if kind == "file" else f"memory://{uuid.uuid4().hex}").below("demo")
    assert place.names() == set()
    assert place.read("a/b") is None
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    with source.open("rb") as opened:
        place.write("a/b", opened, 4)
    place.replace("index", b"1")
    place.replace("index", b"2")
    assert (place.read("a/b"), place.read("index"), b"".join(place.chunks("a/b"))) == (b"0123", b"2", b"0123")
    assert place.names() == {"a/b", "index"}
    place.remove("index")
    place.remove("index")
    place.remove_directory("a")
    place.remove_directory("a")
    assert place.names() == set()


def test_a_source_that_is_shorter_than_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123")
    with source.open("rb") as opened, pytest.raises(OSError, match="became shorter while it was sent, by 6 bytes"):
        open_place(tmp_path.as_uri()).write("a", opened, 10)


def test_a_url_of_no_known_store() -> None:
    with pytest.raises(
        InputError, match=r"storage\.mirror: foo://bucket/x cannot be opened .*; take s3://bucket/prefix"
    ):
        open_place("foo://bucket/x")


def test_a_check_leaves_nothing(tmp_path: Path) -> None:
    open_place((tmp_path / "mirror").as_uri()).check()
    assert list((tmp_path / "mirror").iterdir()) == []


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"storage\.mirror: file://.*/file/x cannot be used"):
        open_place((tmp_path / "file" / "x").as_uri()).check()


@pytest.mark.parametrize("operation", ["write", "read", "remove"])
def test_a_store_that_refuses_one_thing(tmp_path: Path, operation: str) -> None:
    store = FakeFailingStore()
    store.fails = [operation]
    with pytest.raises(InputError) as error:
        Place("s3://b/x", store, str(tmp_path)).check()  # type: ignore[arg-type]
    assert str(error.value) == (
        f"storage.mirror: s3://b/x cannot be reached (AWS Error NETWORK_CONNECTION: could not {operation}); check "
        "AWS_ENDPOINT_URL or endpoint_override, the region, and the way there"
    )


@pytest.mark.parametrize(
    ("sign", "cure"),
    [
        ("AWS Error NO_SUCH_BUCKET during PutObject", "make it, or correct the URL"),
        ("AWS Error ACCESS_DENIED during PutObject", "list, read, write and delete below that prefix"),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject", "set AWS_ACCESS_KEY_ID"),
        ("No space left on device", "free some room"),
    ],
)
def test_each_cause_has_its_cure(sign: str, cure: str) -> None:
    with pytest.raises(InputError, match=cure), explained("s3://b/x"):
        raise OSError(sign)
