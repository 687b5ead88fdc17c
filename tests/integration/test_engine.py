"""The vLLM engine against transformers: the same tokens and log-probabilities, before and after a live reload."""

import asyncio
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from orpo_ray.config.models import EngineConfig
from orpo_ray.engine.vllm_engine import Completion, Draw, Engine
from orpo_ray.training.publish import gather_weights, write_model
from orpo_ray.weights import Version
from orpo_ray.weights.direct import DirectTransport
from orpo_ray.weights.link import is_link
from orpo_ray.weights.loading import WrongWeightsError, load_version
from orpo_ray.weights.probe import Probe
from orpo_ray.weights.published import MANIFEST, IncompleteVersionError, publish_directory, version_directory
from tests.tiny.models import make_model

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
BOS, EOS = 1, 2
PROBED, TRACE = [BOS, 40, 50, 60], [70, 80, 90, 100, 110, EOS]
CONFIG = EngineConfig(dtype="float32", max_model_len=128, max_num_seqs=32, kv_cache_mib=32)
T = TypeVar("T")


class RunningEngine:
    """One engine and the event loop that it lives in."""

    def __init__(self, runner: asyncio.Runner, engine: Engine) -> None:
        self._runner, self.engine = runner, engine

    @classmethod
    @contextmanager
    def on(cls, directory: Path) -> Iterator["RunningEngine"]:
        with asyncio.Runner() as runner:
            engine = runner.run(Engine.start(str(directory), CONFIG, threads=1))
            try:
                yield cls(runner, engine)
            finally:
                engine.stop()

    def run(self, answer: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(answer)

    def sample(self, prompt: list[int], **how: Any) -> list[Completion]:
        return self.run(self.engine.sample(prompt, Draw(**{"k": 1, "temperature": 0.0, "seed": 0, **how})))

    def greedy(self, prompt: list[int]) -> list[int]:
        return self.sample(prompt, max_tokens=24)[0].token_ids


@pytest.fixture(scope="module")
def initial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def published(initial: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights, published as a train worker does."""
    other = load(make_model(tmp_path_factory.mktemp("models") / "other", seed=1))
    directory = version_directory(tmp_path_factory.mktemp("weights"), number=1, attempt=1)
    state = gather_weights(other, partitioned=False, rank=0)
    probe = Probe(PROBED, TRACE, mean_logp_of(other, PROBED, TRACE), "float32")
    publish_directory(directory, lambda path: write_model(path, state, initial), {"number": 1, "probe": probe.fact()})
    return directory


@pytest.fixture(scope="module")
def running(initial: Path) -> Iterator[RunningEngine]:
    with RunningEngine.on(initial) as running:
        yield running


@pytest.fixture(scope="module")
def prompts(initial: Path) -> list[list[int]]:
    """Rendered prompts of several lengths, each with its one begin token."""
    tokenizer = AutoTokenizer.from_pretrained(initial)
    texts = [f"What is {a} plus {a * 7 % 10}?" + " Think it over." * (a % 3) for a in range(8)]
    return [[BOS, *tokenizer(text, add_special_tokens=False).input_ids] for text in texts]


def load(directory: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval()


def greedy_of(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    tokens = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24)
    return tokens[0, len(prompt) :].tolist()


def mean_logp_of(model: PreTrainedModel, prompt: list[int], trace: list[int]) -> float:
    """Mean log-probability of the trace's tokens behind the prompt, nats."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([prompt + trace])).logits[0]
    logp_TV = torch.log_softmax(logits_TV[len(prompt) - 1 : -1], dim=-1)
    return float(logp_TV.gather(1, torch.tensor(trace)[:, None]).mean())


def test_greedy_tokens_are_those_of_transformers_before_and_after_reloads(
    running: RunningEngine, initial: Path, published: Path, prompts: list[list[int]]
) -> None:
    """Back to the first weights at last: nothing of the other's may be left, as in a prefix cache."""
    first = [greedy_of(load(initial), prompt) for prompt in prompts]
    other = [greedy_of(load(published), prompt) for prompt in prompts]
    assert not any(a == b for a, b in zip(first, other, strict=True))
    assert [running.greedy(prompt) for prompt in prompts] == first
    running.run(running.engine.reload(str(published), "1", 300))
    assert [running.greedy(prompt) for prompt in prompts] == other
    running.run(running.engine.reload(str(initial), "2", 300))
    assert [running.greedy(prompt) for prompt in prompts] == first


def test_a_completion_is_labelled_with_the_weights_that_sampled_it(running: RunningEngine, published: Path) -> None:
    for label in ("7", "8"):
        running.run(running.engine.reload(str(published), label, 300))
        assert [trace.version for trace in running.sample([BOS, 5], k=3, temperature=0.8, max_tokens=4)] == [label] * 3


def test_a_reload_waits_for_what_is_in_flight(running: RunningEngine, initial: Path, published: Path) -> None:
    """Its traces are sampled wholly by the weights that they began with."""

    async def reload_meanwhile() -> list[Completion]:
        draw = Draw(k=4, temperature=0.8, max_tokens=100, seed=3)
        sampling = asyncio.create_task(running.engine.sample([BOS, 5, 6], draw))
        await asyncio.sleep(0.05)
        await running.engine.reload(str(published), "new", 300)
        return await sampling

    running.run(running.engine.reload(str(initial), "old", 300))
    alone = running.sample([BOS, 5, 6], k=4, temperature=0.8, max_tokens=100, seed=3)
    beside = running.run(reload_meanwhile())
    assert [trace.token_ids for trace in beside] == [trace.token_ids for trace in alone]
    assert {trace.version for trace in beside} == {"old"}


def test_seeded_traces_are_the_same_alone_as_in_any_company(running: RunningEngine, prompts: list[list[int]]) -> None:
    draws = [Draw(k=4, temperature=0.8, max_tokens=24, seed=100 + place) for place in range(len(prompts))]
    alone = [running.run(running.engine.sample(prompt, draw)) for prompt, draw in zip(prompts, draws, strict=True)]
    together = running.run(running.engine.sample_all(prompts, draws))
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    shuffled = running.run(running.engine.sample_all([prompts[at] for at in order], [draws[at] for at in order]))
    expected = [[trace.token_ids for trace in traces] for traces in alone]
    assert [[trace.token_ids for trace in traces] for traces in together] == expected
    assert [[trace.token_ids for trace in shuffled[order.index(at)]] for at in range(len(prompts))] == expected


def test_the_traces_of_a_prompt_differ_and_so_do_seeds(running: RunningEngine, prompts: list[list[int]]) -> None:
    traces = [
        tuple(trace.token_ids)
        for seed in (1, 1001)  # trace i is sampled with seed + i, so near seeds share traces
        for trace in running.sample(prompts[0], k=4, temperature=0.8, max_tokens=24, seed=seed)
    ]
    assert len(set(traces)) == 8


def test_the_log_probability_is_transformers_log_softmax(
    running: RunningEngine, initial: Path, prompts: list[list[int]]
) -> None:
    """Of the untempered distribution, whatever the sampling temperature."""
    running.run(running.engine.reload(str(initial), "0", 300))
    model = load(initial)
    for prompt in prompts[:4]:
        for trace in running.sample(prompt, k=4, temperature=0.8, max_tokens=16, seed=1, logp=True):
            assert trace.logp == pytest.approx(mean_logp_of(model, prompt, trace.token_ids), abs=1e-3)


def test_a_given_trace_is_scored_token_by_token(running: RunningEngine, initial: Path) -> None:
    running.run(running.engine.reload(str(initial), "0", 300))
    with torch.no_grad():
        logits_TV = load(initial)(torch.tensor([PROBED + TRACE])).logits[0]
    logp_TV = torch.log_softmax(logits_TV[len(PROBED) - 1 : -1], dim=-1)
    expected = logp_TV.gather(1, torch.tensor(TRACE)[:, None])[:, 0].tolist()
    for _ in range(2):  # a cached prefix must not change it
        assert running.run(running.engine.score(PROBED, TRACE)) == pytest.approx(expected, abs=1e-3)
    assert running.engine.dtype == "float32"


def test_a_version_is_checked_in_the_engine_that_loaded_it(
    running: RunningEngine, initial: Path, published: Path, tmp_path: Path
) -> None:
    """Passed by the weights that the trainer had; refused, after a second load, where the manifest tells of others."""
    running.run(load_version(running.engine, Version(1, str(published), step=1), 300))
    assert running.greedy(PROBED) == greedy_of(load(published), PROBED)
    facts = json.loads((published / MANIFEST).read_text())

    def write(path: Path) -> None:
        for name in facts["files"]:
            shutil.copy((initial if name == "model.safetensors" else published) / name, path / name)

    publish_directory(tmp_path / "v000002-a001", write, {"number": 2, "probe": facts["probe"]})
    with pytest.raises(WrongWeightsError, match=r"version 2 was loaded 2 times.*nats from the trainer's"):
        running.run(load_version(running.engine, Version(2, str(tmp_path / "v000002-a001"), step=2), 300))


def test_an_output_layer_tied_to_the_embedding_is_replaced_with_it(tmp_path: Path) -> None:
    """vLLM's own reload leaves it on the first student's weights on a CPU."""
    first, other = (make_model(tmp_path / f"tied{seed}", "llama", seed=seed, tied=True) for seed in (0, 1))
    expected = [mean_logp_of(load(directory), PROBED, TRACE) for directory in (first, other, first)]
    found = []
    with RunningEngine.on(first) as running:
        for number, directory in enumerate((None, other, first)):
            if directory is not None:
                running.run(running.engine.reload(str(directory), str(number), 300))
            found.append(mean(running.run(running.engine.score(PROBED, TRACE))))
    assert found == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0] - expected[1]) > 0.01


def test_weights_that_are_sent_are_those_that_are_read(running: RunningEngine, initial: Path, tmp_path: Path) -> None:
    """Transport `nccl`, over gloo: this process trains, the engine's own receives."""
    other = load(make_model(tmp_path / "other", seed=2))
    state = gather_weights(other, partitioned=False, rank=0)
    with DirectTransport("127.0.0.1", limit_s=60) as transport:
        path = tmp_path / "v000004-a001"
        facts = {"number": 4, "probe": Probe(PROBED, TRACE, mean_logp_of(other, PROBED, TRACE), "float32").fact()}
        copy = transport.publish(path, lambda directory: write_model(directory, state, initial), facts, 0)
        running.run(load_version(running.engine, Version(4, str(path), step=4, copy=copy), 60))
    assert copy is not None
    assert is_link(copy)
    assert running.greedy([BOS, 40, 50]) == greedy_of(other, [BOS, 40, 50])


def test_a_sender_that_is_gone_leaves_the_storage(running: RunningEngine, published: Path) -> None:
    version = Version(1, str(published), step=1, copy="gloo://127.0.0.1:9/life/1")
    running.run(load_version(running.engine, version, 60))
    assert running.greedy([BOS, 40, 50]) == greedy_of(load(published), [BOS, 40, 50])


def test_a_truncated_version_never_reaches_the_engine(running: RunningEngine, published: Path, tmp_path: Path) -> None:
    running.run(load_version(running.engine, Version(1, str(published), step=1), 300))
    before = running.greedy(PROBED)
    broken = Path(shutil.copytree(published, tmp_path / "v000002-a001"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(IncompleteVersionError, match="the manifest says"):
        running.run(load_version(running.engine, Version(2, str(broken), step=2), 300))
    assert running.greedy(PROBED) == before


def test_an_engine_whose_reload_failed_can_load_again(running: RunningEngine, published: Path, tmp_path: Path) -> None:
    """A storage that was away for a moment does not cost the engine."""
    with pytest.raises(Exception, match=r"Worker failed with error .*nothing"):
        running.run(running.engine.reload(str(tmp_path / "nothing"), "9", 300))
    assert not running.engine.dead
    running.run(load_version(running.engine, Version(1, str(published), step=1), 300))
    assert running.greedy(PROBED) == greedy_of(load(published), PROBED)


def test_the_prompt_is_taken_as_it_is_given(running: RunningEngine, initial: Path, prompts: list[list[int]]) -> None:
    """No begin token is put before ids, whether they have one, none, or two."""
    running.run(running.engine.reload(str(initial), "0", 300))
    model = load(initial)
    bare = prompts[0][1:]
    for given in (bare, [BOS, *bare], [BOS, BOS, *bare]):
        [trace] = running.sample(given, max_tokens=24, logp=True)
        assert trace.token_ids == greedy_of(model, given)
        expected = [mean_logp_of(model, begin + bare, trace.token_ids) for begin in ([], [BOS], [BOS, BOS])]
        nearest = min(expected, key=lambda value: abs(value - trace.logp))
        assert nearest == expected[len(given) - len(bare)]


def test_a_trace_has_its_end_token_or_was_cut(running: RunningEngine, prompts: list[list[int]]) -> None:
    """A random student ends one trace in some 300 tokens."""
    draws = [Draw(k=16, temperature=1.0, max_tokens=64, seed=seed) for seed in range(len(prompts))]
    traces = [trace for drawn in running.run(running.engine.sample_all(prompts, draws)) for trace in drawn]
    assert {trace.truncated for trace in traces} == {True, False}
    for trace in traces:
        assert trace.token_ids.count(EOS) == (0 if trace.truncated else 1)
        assert len(trace.token_ids) == 64 if trace.truncated else trace.token_ids[-1] == EOS
        assert "</s>" not in trace.text


def test_an_engine_ends_with_a_killed_sampler(initial: Path) -> None:
    """Where nobody stops it, as after `ray stop`: EngineCore would wait for good, with its memory."""
    owner = subprocess.Popen(
        [sys.executable, "-m", __name__, str(initial)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    while (line := owner.stdout.readline()) and line.strip() != "ready":  # vLLM prints on its way
        pass
    engine = psutil.Process(owner.pid).children(recursive=True)
    owner.kill()
    owner.wait()
    _, alive = psutil.wait_procs(engine, timeout=30)
    for process in alive:
        process.kill()
    assert len(engine) >= 2, "EngineCore and its worker"
    assert not alive


async def serve_nobody(model: str) -> None:
    await Engine.start(model, CONFIG, threads=1)
    print("ready", flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":  # the sampler that is killed
    asyncio.run(serve_nobody(sys.argv[1]))
