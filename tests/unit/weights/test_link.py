"""Tensors over a link between two threads here; between processes in tests/integration/test_engine.py."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from orpo_ray.weights.link import LinkError, Sender, is_link, receive

CPU = torch.device("cpu")
TENSORS = {
    "embed.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "layer.weight": torch.linspace(-1, 1, 6).to(torch.bfloat16),
    "layer.scale": torch.tensor(2.5),
    "step": torch.tensor([7]),
}


@pytest.fixture
def sender() -> Iterator[Sender]:
    with Sender("127.0.0.1", limit_s=20) as sender:
        yield sender


def received(address: str) -> dict[str, Tensor]:
    return dict(receive(address, CPU, 20))


def test_what_is_offered_comes_as_it_is(sender: Sender) -> None:
    found = received(sender.offer(3, TENSORS))
    assert list(found) == list(TENSORS)
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )


def test_several_receive_side_by_side(sender: Sender) -> None:
    address = sender.offer(3, TENSORS)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(received, [address] * 4))
    assert all(torch.equal(tensors["embed.weight"], TENSORS["embed.weight"]) for tensors in found)


def test_a_version_that_was_replaced_is_said_to_be_gone(sender: Sender) -> None:
    former = sender.offer(3, TENSORS)
    newer = sender.offer(4, {"weight": torch.ones(2)})
    with pytest.raises(LinkError, match=r"version 3 is no longer offered at gloo://127\.0\.0\.1:"):
        received(former)
    assert torch.equal(received(newer)["weight"], torch.ones(2))


def test_a_receiver_that_goes_in_the_middle_takes_nobody_with_it(sender: Sender) -> None:
    address = sender.offer(3, TENSORS)
    cut = receive(address, CPU, 20)
    next(cut)
    cut.close()
    assert list(received(address)) == list(TENSORS)


def test_a_sender_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpo_ray.weights.link._ANSWER_S", 1.0)
    with Sender("127.0.0.1", limit_s=20) as sender:
        address = sender.offer(3, TENSORS)
    with pytest.raises(LinkError, match=r"version 3 (did not come from|is no longer offered at) gloo://"):
        received(address)


def test_gpu_to_gpu_is_refused_by_an_engine_on_a_cpu() -> None:
    with pytest.raises(LinkError, match="sends from GPU to GPU, and this engine is on cpu"):
        received("nccl://127.0.0.1:1/life/3")


def test_a_sender_leaves_no_thread_behind() -> None:
    with Sender("127.0.0.1", limit_s=20) as sender:
        received(sender.offer(3, TENSORS))
    for thread in threading.enumerate():
        if thread.name.startswith("weights-link"):
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("address", "link"),
    [("gloo://10.0.0.1:4242/1f/3", True), ("nccl://10.0.0.1:4242/1f/3", True), ("/dev/shm/orpo_ray-1f/v000003", False)],
)
def test_a_link_is_told_from_a_directory(address: str, link: bool) -> None:
    assert is_link(address) is link
