"""Versions that all hold the weights of one model: an engine loads and checks each as any other, and samples the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from orpo_ray.pairs import SourcePrompt
from orpo_ray.training.publish import PROBE_TOKENS
from orpo_ray.weights import Version
from orpo_ray.weights.probe import FACT, Probe
from orpo_ray.weights.published import publish_directory, version_directory


class SameWeights:
    """Publishes the model in `model` again and again, by links, below `directory`."""

    def __init__(self, model: Path, directory: Path, prompt: SourcePrompt) -> None:
        self._model, self._directory = model, directory
        self._probe = probe_of_model(model, prompt.prompt[-PROBE_TOKENS:], prompt.positives[0][:PROBE_TOKENS])

    def publish(self, number: int, step: int) -> Version:
        path = version_directory(self._directory / "weights", number, 1)
        publish_directory(path, self._link, {"number": number, "step": step, FACT: self._probe.fact()})
        return Version(number, str(path), step)

    def _link(self, directory: Path) -> None:
        for file in self._model.iterdir():
            if file.is_file():
                os.symlink(file.resolve(), directory / file.name)


def probe_of_model(model: Path, prompt: list[int], trace: list[int]) -> Probe:
    """As the trainer leaves it in a manifest, of transformers' own forward pass."""
    import torch
    from transformers import AutoModelForCausalLM

    student: Any = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.no_grad():
        logits = student(torch.tensor([prompt + trace])).logits[0, len(prompt) - 1 : -1].float()
    logp = logits.log_softmax(-1).gather(1, torch.tensor(trace)[:, None]).mean()
    return Probe(prompt, trace, float(logp), str(student.dtype).removeprefix("torch."))
