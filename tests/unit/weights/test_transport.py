"""Every transport leaves the same on the storage; `shm` a copy in memory meanwhile, and nothing afterwards."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from orpo_ray.config import RunConfig
from orpo_ray.errors import InputError
from orpo_ray.weights import shm
from orpo_ray.weights.link import receive
from orpo_ray.weights.published import check_published
from orpo_ray.weights.shm import SharedMemoryTransport, sweep
from orpo_ray.weights.transport import FilesystemTransport, Transport, transport_of


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    directory = tmp_path / "shm"
    directory.mkdir()
    return directory


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture(params=["filesystem", "shm"])
def transport(request: pytest.FixtureRequest, memory: Path, weights: Path) -> Iterator[Transport]:
    made = SharedMemoryTransport(weights, memory) if request.param == "shm" else FilesystemTransport()
    with made:
        yield made


def writing(text: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "model.safetensors").write_text(text)
        (directory / "adapter").mkdir()
        (directory / "adapter" / "adapter_config.json").write_text("{}")

    return write


def publish(transport: Transport, weights: Path, number: int) -> str | None:
    facts = {"number": number, "step": number}
    return transport.publish(weights / f"v{number}", writing(f"weights {number}"), facts, size=10)


def test_once_it_has_settled_the_storage_has_every_version(transport: Transport, weights: Path) -> None:
    for number in (1, 2, 3):
        copy = publish(transport, weights, number)
        for place in [Path(copy)] if copy else [weights / f"v{number}"]:
            assert check_published(place)["number"] == number
    transport.settle()
    for number in (1, 2, 3):
        facts = check_published(weights / f"v{number}")
        assert {name: facts[name] for name in ("number", "step")} == {"number": number, "step": number}
        assert facts["files"] == {"adapter/adapter_config.json": 2, "model.safetensors": 9}
        assert (weights / f"v{number}" / "model.safetensors").read_text() == f"weights {number}"


def test_memory_holds_the_newest_version_only_and_nothing_in_the_end(memory: Path, weights: Path) -> None:
    with SharedMemoryTransport(weights, memory) as transport:
        for number in (1, 2, 3):
            publish(transport, weights, number)
            assert [path.parent.name for path in memory.rglob("model.safetensors")] == [f"v{number}"]
    assert list(memory.iterdir()) == []
    assert check_published(weights / "v3")


def test_readers_are_told_before_the_storage_has_it(
    memory: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow storage holds up the next checkpoint, not the samplers."""
    arrived, copy_whole = threading.Event(), shm._copy

    def slowly(*arguments: object) -> None:
        assert arrived.wait(10)
        copy_whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shm, "_copy", slowly)
    with SharedMemoryTransport(weights, memory) as transport:
        copy = publish(transport, weights, 1)
        assert copy is not None
        assert check_published(Path(copy))
        assert not (weights / "v1").exists()
        arrived.set()
        transport.settle()
        assert check_published(weights / "v1")


def test_a_storage_that_is_full_is_not_passed_over(
    memory: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(shm, "_copy", fail)
    with SharedMemoryTransport(weights, memory) as transport:
        publish(transport, weights, 1)
        with pytest.raises(OSError, match="no space left"):
            transport.settle()
    assert list(memory.iterdir()) == []


def test_too_little_memory_is_said_before_anything_is_written(memory: Path, weights: Path) -> None:
    with pytest.raises(InputError) as raised, SharedMemoryTransport(weights, memory) as transport:
        transport.publish(weights / "v1", writing("much"), {}, size=1 << 60)
    assert str(raised.value).startswith(f"storage.transport: shm puts a version of 1099511627776 MiB into {memory}")
    assert "--shm-size" in str(raised.value)
    assert "or take `filesystem`" in str(raised.value)
    assert not weights.exists()
    assert list(memory.iterdir()) == []


def test_what_a_killed_life_of_the_run_left_goes_and_another_run_keeps_its_own(memory: Path, tmp_path: Path) -> None:
    killed = SharedMemoryTransport(tmp_path / "weights", memory)
    left = publish(killed, tmp_path / "weights", 1)
    other = publish(SharedMemoryTransport(tmp_path / "other", memory), tmp_path / "other", 1)
    again = SharedMemoryTransport(tmp_path / "weights", memory)
    assert left is not None
    assert other is not None
    assert not Path(left).exists()
    assert Path(other).exists()
    assert publish(again, tmp_path / "weights", 1) != left, "a reader of the former life must not find this one"
    sweep(tmp_path / "weights", memory)
    assert [path.name for path in memory.rglob("v*")] == ["v1"]


def test_nccl_offers_what_it_has_put_on_the_storage(weights: Path) -> None:
    tensors = {"weight": torch.arange(6.0).reshape(2, 3)}
    with transport_of("nccl", weights, "127.0.0.1", 20) as transport:
        copy = transport.publish(
            weights / "v1", lambda directory: save_file(tensors, directory / "model.safetensors"), {"number": 1}, 0
        )
        assert check_published(weights / "v1")["number"] == 1
        assert copy is not None
        assert torch.equal(dict(receive(copy, torch.device("cpu"), 20))["weight"], tensors["weight"])


def test_an_adapter_is_not_offered_but_read(weights: Path) -> None:
    def write(directory: Path) -> None:
        (directory / "adapter_model.safetensors").write_text("")

    with transport_of("nccl", weights, "127.0.0.1", 20) as transport:
        assert transport.publish(weights / "v1", write, {"number": 1}, 0) is None


def test_the_transport_may_change_between_two_starts_of_a_run() -> None:
    from orpo_ray.config.fingerprint import what_matters

    def with_transport(name: str) -> RunConfig:
        storage = {"transport": name}
        return RunConfig.model_validate({"task": {"name": "gsm8k"}, "student": {"model": "m"}, "storage": storage})

    assert what_matters(with_transport("shm")) == what_matters(with_transport("filesystem"))
