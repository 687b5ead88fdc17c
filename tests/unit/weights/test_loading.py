"""A version is looked at before it is loaded, and the engine asked afterwards; the engine is a fake."""

import asyncio
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orpo_ray.errors import WaitTimeout
from orpo_ray.weights import Version
from orpo_ray.weights.link import LinkError
from orpo_ray.weights.loading import WrongWeightsError, load_version
from orpo_ray.weights.probe import Probe, probe_of
from orpo_ray.weights.published import IncompleteVersionError, publish_directory

TRACE = [7, 8, 9]


class ScoringEngine:
    """A fake engine whose log-probabilities are what its weights file says, once a reload has taken effect."""

    dtype = "float32"

    def __init__(self, reloads_that_fail_silently: int = 0) -> None:
        self.loaded: list[str] = []
        self._deaf = reloads_that_fail_silently
        self._logp = -9.0
        self.before: Callable[[str], None] = lambda directory: None
        self.link: float | None = None  # what comes over a link; None for a link that breaks

    async def reload(self, directory: str, label: str, timeout_s: float) -> None:
        self.before(directory)
        logp = float((Path(directory) / "model.safetensors").read_text())
        self.loaded.append(directory)
        if len(self.loaded) > self._deaf:
            self._logp = logp

    async def receive(self, address: str, label: str, timeout_s: float) -> None:
        if self.link is None:
            raise LinkError("its sender is gone")
        self.loaded.append(address)
        self._logp = self.link

    async def score(self, prompt: Sequence[int], trace: Sequence[int]) -> list[float]:
        assert (list(prompt), list(trace)) == ([1, 2], TRACE)
        return [self._logp - 0.5, self._logp, self._logp + 0.5]


def publish(
    directory: Path, logp: float, *, probe: bool = True, dtype: str = "float32", trained: float | None = None
) -> Version:
    """A version whose engine says `logp`, and whose trainer said `trained`, the same by default."""
    said = Probe([1, 2], TRACE, logp if trained is None else trained, dtype).fact()
    publish_directory(
        directory,
        lambda path: (path / "model.safetensors").write_text(str(logp)) and None,
        {"number": 3, **({"probe": said} if probe else {})},
    )
    return Version(3, str(directory), step=3)


def load(engine: ScoringEngine, version: Version, limit_s: float = 5) -> None:
    asyncio.run(load_version(engine, version, limit_s))


def test_an_engine_that_says_what_the_trainer_said_has_it(tmp_path: Path) -> None:
    engine = ScoringEngine()
    load(engine, publish(tmp_path / "v3", -1.25))
    assert engine.loaded == [str(tmp_path / "v3")]


def test_weights_that_were_not_loaded_are_loaded_once_more(tmp_path: Path) -> None:
    engine = ScoringEngine(reloads_that_fail_silently=1)
    load(engine, publish(tmp_path / "v3", -1.25))
    assert len(engine.loaded) == 2


def test_weights_that_stay_wrong_are_an_error(tmp_path: Path) -> None:
    engine = ScoringEngine()
    with pytest.raises(WrongWeightsError) as raised:
        load(engine, publish(tmp_path / "v3", -1.25, trained=-1.0))
    assert len(engine.loaded) == 2
    assert str(raised.value) == (
        f"version 3 was loaded 2 times, at last from {tmp_path / 'v3'}, and the engine still gives the probe's tokens a "
        "log-probability 0.25 nats from the trainer's, where rounding explains 0.002"
    )


def test_a_student_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WrongWeightsError, match="nan nats"):
        load(ScoringEngine(), publish(tmp_path / "v3", math.nan, trained=-1.0))


@pytest.mark.parametrize(
    ("trainer", "engine", "gap", "right"),
    [
        ("float32", "float32", 0.001, True),
        ("float32", "float32", 0.01, False),
        ("bfloat16", "bfloat16", 0.05, True),
        ("bfloat16", "bfloat16", 0.2, False),
        ("float32", "bfloat16", 0.05, True),
        ("bfloat16", "float32", 0.05, True),
    ],
)
def test_the_coarser_precision_says_what_is_rounding(trainer: str, engine: str, gap: float, right: bool) -> None:
    probe = Probe([1], [2, 3], -2.0, trainer)
    assert (probe.gap([-2.5 + gap, -1.5 + gap]) <= probe.tolerance(engine)) is right


def test_a_version_without_a_probe_is_taken_as_it_is(tmp_path: Path) -> None:
    engine = ScoringEngine()
    load(engine, publish(tmp_path / "v3", -1.25, probe=False))
    assert len(engine.loaded) == 1
    assert probe_of({"number": 3}) is None


def test_a_truncated_version_is_never_loaded(tmp_path: Path) -> None:
    engine, version = ScoringEngine(), publish(tmp_path / "v3", -1.25)
    (tmp_path / "v3" / "model.safetensors").write_text("-1.2")
    with pytest.raises(IncompleteVersionError, match="4 bytes, the manifest says 5"):
        load(engine, version)
    assert engine.loaded == []


def test_a_version_that_goes_while_it_is_loaded_is_named_as_such(tmp_path: Path) -> None:
    engine, version = ScoringEngine(), publish(tmp_path / "v3", -1.25)
    engine.before = shutil.rmtree
    with pytest.raises(IncompleteVersionError, match="no readable manifest"):
        load(engine, version)


def test_a_fault_of_the_engine_is_raised_as_it_is(tmp_path: Path) -> None:
    engine, version = ScoringEngine(), publish(tmp_path / "v3", -1.25)

    def fail(directory: str) -> None:
        raise RuntimeError("EngineCore encountered an issue")

    engine.before = fail
    with pytest.raises(RuntimeError, match="EngineCore"):
        load(engine, version)


def test_the_initial_student_was_not_published_and_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("-3")
    engine = ScoringEngine()
    load(engine, Version(0, str(tmp_path), step=0))
    assert engine.loaded == [str(tmp_path)]


def test_a_check_that_is_not_answered_ends(tmp_path: Path) -> None:
    class Silent(ScoringEngine):
        async def score(self, prompt: Sequence[int], trace: Sequence[int]) -> list[float]:
            await asyncio.sleep(60)
            return []

    with pytest.raises(WaitTimeout, match=r"limits\.reload_s: the check of version 3 was not answered within 0.1 s"):
        load(Silent(), publish(tmp_path / "v3", -1.25), limit_s=0.1)


def test_the_copy_in_memory_is_taken_where_it_is_there(tmp_path: Path) -> None:
    version = publish(tmp_path / "v3", -1.25)
    publish(tmp_path / "copy", -1.25)
    engine = ScoringEngine()
    load(engine, Version(3, version.path, step=3, copy=str(tmp_path / "copy")))
    assert engine.loaded == [str(tmp_path / "copy")]


@pytest.mark.parametrize("when", ["before", "while"])
def test_without_the_copy_the_storage_has_it(tmp_path: Path, when: str) -> None:
    """On another node, or where the next version has taken the copy's place."""
    version = publish(tmp_path / "v3", -1.25)
    engine = ScoringEngine()
    if when == "while":
        publish(tmp_path / "copy", -1.25)
        engine.before = lambda directory: shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    load(engine, Version(3, version.path, step=3, copy=str(tmp_path / "copy")))
    assert engine.loaded == [str(tmp_path / "v3")]


def test_a_version_on_its_way_to_the_storage_is_waited_for(tmp_path: Path) -> None:
    engine, version = ScoringEngine(), Version(3, str(tmp_path / "v3"), step=3, copy=str(tmp_path / "elsewhere"))

    async def scene() -> None:
        loading = asyncio.create_task(load_version(engine, version, 5))
        await asyncio.sleep(0.2)
        assert engine.loaded == []
        publish(tmp_path / "v3", -1.25)
        await loading

    asyncio.run(scene())
    assert engine.loaded == [str(tmp_path / "v3")]
    with pytest.raises(IncompleteVersionError):
        load(engine, Version(4, str(tmp_path / "v4"), step=4, copy=str(tmp_path / "elsewhere")), limit_s=0.2)


LINK = "gloo://10.0.0.1:4242/1f/3"


def test_a_version_that_is_sent_is_not_read(tmp_path: Path) -> None:
    engine, version = ScoringEngine(), replace(publish(tmp_path / "v3", -1.25), copy=LINK)
    engine.link = -1.25
    load(engine, version)
    assert engine.loaded == [LINK]


def test_a_link_that_breaks_leaves_the_storage(tmp_path: Path) -> None:
    engine, version = ScoringEngine(), replace(publish(tmp_path / "v3", -1.25), copy=LINK)
    load(engine, version)
    assert engine.loaded == [version.path]


def test_what_came_over_a_link_is_checked_like_any_other(tmp_path: Path) -> None:
    engine, version = ScoringEngine(), replace(publish(tmp_path / "v3", -1.25), copy=LINK)
    engine.link = -1.5
    with pytest.raises(WrongWeightsError, match=f"at last from {LINK}"):
        load(engine, version)
