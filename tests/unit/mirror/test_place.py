"""Where a mirror lies: which URLs are taken, and what is said of a place that cannot be used."""

import uuid
from io import BytesIO
from pathlib import Path

import pytest

from orpo_ray.errors import InputError
from orpo_ray.mirror.place import Place, open_place, tried
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


def test_what_was_only_put_by_has_not_got_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store takes the first part into memory and refuses it at the end."""
    monkeypatch.setattr("orpo_ray.mirror.place.CHUNK", 4)
    heard: list[int] = []
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")

    class FakeStream(BytesIO):
        def close(self) -> None:
            assert len(heard) == (2 if len(self.getvalue()) == 10 else 0)
            raise OSError("AWS Error SLOW_DOWN")

    class FakeStore(FakeFailingStore):
        def open_output_stream(self, path: str) -> FakeStream:
            return FakeStream()

    place = Place("s3://b", FakeStore(), str(tmp_path))  # type: ignore[arg-type]
    for size in (4, 10):
        with source.open("rb") as opened, pytest.raises(OSError, match="SLOW_DOWN"):
            place.write("a", opened, size, lambda: heard.append(1))
    assert len(heard) == 2


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
def test_a_store_that_refuses_one_thing(tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpo_ray.mirror.place.time.sleep", lambda _: None)
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
    def fails() -> None:
        raise OSError(sign)

    with pytest.raises(InputError, match=cure):
        tried("s3://b/x", fails)


def test_a_fault_that_passes_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("orpo_ray.mirror.place.time.sleep", slept.append)
    answers = iter([OSError("AWS Error SLOW_DOWN"), OSError("AWS Error NETWORK_CONNECTION"), "there"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert (tried("s3://b/x", call), slept) == ("there", [1, 2])


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    class FakeStore(FakeFailingStore):
        reads = 0

        def open_input_stream(self, path: str) -> BytesIO:
            self.reads += 1
            return BytesIO(Path(path).read_bytes()[: 3 if self.reads == 1 else None])

    (tmp_path / "driver.json").write_bytes(b"longer now")
    assert Place("s3://b", FakeStore(), str(tmp_path)).read("driver.json") == b"longer now"  # type: ignore[arg-type]
