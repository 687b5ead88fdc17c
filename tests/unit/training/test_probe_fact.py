"""What a version's manifest says that its engines are checked by: few tokens, and the trainer's own score of them."""

from types import SimpleNamespace
from typing import Any

import torch

from orpo_ray.training.batching import TokenGroup
from orpo_ray.training.publish import PROBE_TOKENS, probe_fact
from orpo_ray.training.stats import NAMES


class RecordingEngine:
    """A DeepSpeed engine that keeps what it was asked, and answers -1.5."""

    device = "cpu"

    def __init__(self) -> None:
        self.module = SimpleNamespace(batch=self._batch)
        self.asked: list[TokenGroup] = []
        self.modes: list[str] = []

    def _batch(self, groups: list[TokenGroup], real_rows: int) -> Any:
        self.asked += groups
        return torch.zeros(1)

    def __call__(self, batch: Any) -> Any:
        self.modes.append("forward")
        return None, torch.tensor([-1.5 if name == "chosen_logp" else 0.0 for name in NAMES]), None

    def eval(self) -> None:
        self.modes.append("eval")

    def train(self) -> None:
        self.modes.append("train")


def test_the_end_of_the_prompt_and_the_beginning_of_the_trace_are_scored() -> None:
    engine = RecordingEngine()
    fact = probe_fact(engine, list(range(100)), list(range(100, 200)), "bfloat16")
    (group,) = engine.asked
    assert list(group.prompt) == fact["prompt"] == list(range(100 - PROBE_TOKENS, 100))
    assert list(group.chosen[0]) == fact["trace"] == list(range(100, 100 + PROBE_TOKENS))
    assert (fact["logp"], fact["dtype"]) == (-1.5, "bfloat16")


def test_short_ones_are_taken_whole_and_the_engine_trains_on() -> None:
    engine = RecordingEngine()
    fact = probe_fact(engine, [5, 6], [7], "float32")
    assert (fact["prompt"], fact["trace"]) == ([5, 6], [7])
    assert engine.modes == ["eval", "forward", "train"]
