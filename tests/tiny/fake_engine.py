"""A sampler with a fake engine: no model, the same answers to the same seeds, and a record of every call.

For tests of the stream, the gate, the journal and faults, where what is sampled does not matter and how often does.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_ray.config import RunConfig
from orpo_ray.engine.live import LiveEngine
from orpo_ray.engine.vllm_engine import Completion, Draw, Engine
from orpo_ray.evaluation.evaluator import Evaluator, EvaluatorSpec
from orpo_ray.pairs import SourcePrompt, write_pair_source
from orpo_ray.pairs.draw import draw as random_bits
from orpo_ray.sampling.initial import InitialSampler, InitialSpec
from orpo_ray.sampling.sampler import Sampler, SamplerSpec
from orpo_ray.tasks.split_of import split_of
from orpo_ray.weights.probe import probe_of
from orpo_ray.weights.published import check_published

END = 2
_FIRST_DIGIT, _FIRST_VERSION, _FIRST_FREE, _FREE = 10, 30, 80, 200


@dataclass(frozen=True)
class FakeEngineSpec(SamplerSpec):
    """Attributes:
    calls: a file that each call appends a JSON line to: pid, version, and the prompts that were asked.
    seconds: how long a call takes.
    """

    calls: Path = Path("unset")
    seconds: float = 0.0

    @classmethod
    def below(cls, directory: Path, config: RunConfig, seconds: float = 0.0) -> "FakeEngineSpec":
        """A first attempt's, whose files all lie below a directory."""
        return cls(
            config=config,
            task=split_of(config.task, "train", config.seed),
            attempt=1,
            initial="initial",
            pairs=directory / "pairs",
            journal=directory / "journal",
            calls=directory / "calls.jsonl",
            seconds=seconds,
        )


class Reloaded:
    """What a fake engine knows of a version: where it lies, and what its probe must give."""

    dtype = "float32"
    _directory = Path("unset")

    async def reload(self, directory: str, label: str, timeout_s: float) -> None:
        self._directory = Path(directory)

    async def score(self, prompt: Sequence[int], trace: Sequence[int]) -> list[float]:
        """As the trainer that wrote the manifest says it must be."""
        probe = probe_of(check_published(self._directory))
        assert probe is not None
        return [probe.logp] * len(trace)


class FakeEngine(Reloaded):
    """Answers sums of two digits: right where the first is 0, else wrong. Its tokens tell which version it had."""

    dead = False

    def __init__(self, spec: FakeEngineSpec) -> None:
        self._spec = spec
        self._version = 0

    async def sample_all(self, prompts: Sequence[Sequence[int]], draws: Sequence[Draw]) -> list[list[Completion]]:
        asked = [prompt_id(prompt) for prompt in prompts]
        record_call(self._spec.calls, pid=os.getpid(), version=self._version, asked=asked, at=time.time())
        await asyncio.sleep(self._spec.seconds)
        return [
            [self._completion(prompt, random_bits(how.seed, place)) for place in range(how.k)]
            for prompt, how in zip(prompts, draws, strict=True)
        ]

    async def reload(self, directory: str, label: str, timeout_s: float) -> None:
        record_call(self._spec.calls.with_name("loads.jsonl"), version=int(label), directory=directory)
        self._version = int(label)
        await super().reload(directory, label, timeout_s)

    def stop(self) -> None: ...

    def _completion(self, prompt: Sequence[int], bits: int) -> Completion:
        a, b = (token - _FIRST_DIGIT for token in prompt)
        answer = b if a == 0 else a + b + 1 + bits % 50
        tokens = [_FIRST_VERSION + self._version, _FIRST_FREE + bits % _FREE, END]
        return Completion(tokens, f"the answer is {answer}", truncated=False, logp=-1.0, version=str(self._version))


class FakeEngineSampler(Sampler):
    """The sampler as it is, on a fake engine."""

    _spec: FakeEngineSpec
    engine: type[FakeEngine] = FakeEngine

    async def _engine(self) -> LiveEngine:
        async with self._starting:
            if self._live is None:
                fake: Any = self.engine(self._spec)
                self._live = LiveEngine(fake, version=0)
            return self._live


class ProcessEngine(FakeEngine):
    """The fake engine with a process of its own that does nothing but live, and goes with its sampler."""

    def __init__(self, spec: FakeEngineSpec) -> None:
        super().__init__(spec)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()", "FakeEngineCore"], stdin=subprocess.PIPE
        )

    @property
    def dead(self) -> bool:  # type: ignore[override]
        return self._process.poll() is not None

    async def sample_all(self, prompts: Sequence[Sequence[int]], draws: Sequence[Draw]) -> list[list[Completion]]:
        completions = await super().sample_all(prompts, draws)
        if self.dead:
            raise RuntimeError("EngineCore encountered an issue")
        return completions


class ProcessEngineSampler(FakeEngineSampler):
    """The sampler as it is, on a fake engine whose process can be killed."""

    engine = ProcessEngine


class AlwaysWrongEngine:
    """A fake engine that answers 99 to everything."""

    async def sample_all(self, prompts: Sequence[Sequence[int]], draws: Sequence[Draw]) -> list[list[Completion]]:
        wrong = Completion([_FIRST_FREE, END], "the answer is 99", truncated=False, logp=-1.0, version=None)
        return [[wrong] * draw.k for draw in draws]


class FakeInitialSampler(InitialSampler):
    """SEED's sampler as it is, on a fake engine."""

    async def _started(self) -> Engine:
        fake: Any = AlwaysWrongEngine()
        return fake


def record_call(file: Path, **facts: Any) -> None:
    """One line, written whole whatever other processes write."""
    with file.open("a") as lines:
        lines.write(json.dumps(facts) + "\n")


def read_calls(file: Path) -> list[dict[str, Any]]:
    """The calls that the fake engines of a test have answered or were answering."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def prompt_id(prompt: Sequence[int]) -> str:
    return "+".join(str(token - _FIRST_DIGIT) for token in prompt)


def sampled_by(trace: Sequence[int]) -> int:
    """The version that the fake engine had when it made this trace."""
    return trace[0] - _FIRST_VERSION


def write_sums(directory: Path, count: int) -> list[str]:
    """A pair source of the first `count` sums; those with b = 0 have no initial negatives. Returns the prompts' ids."""
    sums = [(at // 10, at % 10) for at in range(count)]
    write_pair_source(
        directory,
        [
            SourcePrompt(
                prompt_id=f"{a}+{b}",
                row=json.dumps({"a": a, "b": b}),
                prompt=[_FIRST_DIGIT + a, _FIRST_DIGIT + b],
                positives=[[20, _FIRST_FREE + a + b, END], [21, _FIRST_FREE + a + b, END]],
                negatives=[[22, END], [23, END], [24, END]][: 3 if b else 0],
            )
            for a, b in sums
        ],
    )
    return [f"{a}+{b}" for a, b in sums]


@dataclass(frozen=True)
class Deaths:
    """Which lives of an actor on a fake engine end in its first call.

    Attributes:
        calls: a file that each call appends its pid to.
        lives: how many lives end.
        engine: the engine's process dies, and the actor with it; else the actor itself.
    hangs: the actor does not die, but stands still.
    """

    calls: Path
    lives: int
    engine: bool = False
    hangs: bool = False


class MortalEngine(Reloaded, AlwaysWrongEngine):
    """Answers 99 to everything, once it is in a life that lasts."""

    def __init__(self, deaths: Deaths) -> None:
        self._deaths = deaths
        self.dead = False

    async def sample_all(self, prompts: Sequence[Sequence[int]], draws: Sequence[Draw]) -> list[list[Completion]]:
        record_call(self._deaths.calls, pid=os.getpid())
        if len({call["pid"] for call in read_calls(self._deaths.calls)}) <= self._deaths.lives:
            if not self._deaths.engine:
                os.kill(os.getpid(), signal.SIGSTOP if self._deaths.hangs else signal.SIGKILL)
            self.dead = True
            raise RuntimeError("EngineCore encountered an issue")
        return await super().sample_all(prompts, draws)

    def stop(self) -> None: ...


@dataclass(frozen=True)
class MortalInitialSpec(InitialSpec):
    deaths: Deaths = Deaths(Path("unset"), 0)


class MortalInitialSampler(InitialSampler):
    """SEED's sampler as it is, on an engine that dies."""

    _spec: MortalInitialSpec

    async def _started(self) -> Engine:
        if self._engine is None:
            fake: Any = MortalEngine(self._spec.deaths)
            self._engine = fake
        return self._engine


@dataclass(frozen=True)
class MortalEvaluatorSpec(EvaluatorSpec):
    deaths: Deaths = Deaths(Path("unset"), 0)


class MortalEvaluator(Evaluator):
    """The evaluator as it is, on an engine that dies."""

    _spec: MortalEvaluatorSpec

    async def _started(self) -> Engine:
        if self._engine is None:
            fake: Any = MortalEngine(self._spec.deaths)
            self._engine, self._loaded = fake, self._spec.initial
        return self._engine
