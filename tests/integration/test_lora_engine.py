"""Adapters swapped in a live vLLM engine: its tokens and log-probabilities are those of transformers with peft."""

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from orpo_ray.config.models import EngineConfig
from orpo_ray.config.training import LoraConfig
from orpo_ray.engine.live import LiveEngine
from orpo_ray.engine.vllm_engine import Draw, Engine
from orpo_ray.training.lora import adapt
from orpo_ray.training.model import load_student
from orpo_ray.training.publish import gather_student
from orpo_ray.weights import Version
from orpo_ray.weights.loading import load_version
from orpo_ray.weights.probe import FACT, Probe
from orpo_ray.weights.published import publish_directory, version_directory
from tests.tiny.models import make_model

pytestmark = pytest.mark.timeout(900)

CONFIG = EngineConfig(dtype="float32", max_model_len=128, max_num_seqs=32, kv_cache_mib=32)
LORA = LoraConfig(rank=6, alpha=12)  # no rank of vLLM's own
PROMPTS = [[1, 40, 50, 60, 70, 33], [1, 40, 50, 60, 70, 34], [1, 90], [1, *range(30, 60)]]
T = TypeVar("T")


class Running:
    """One engine on the base, the event loop that it lives in, and the versions that it is given."""

    def __init__(self, runner: asyncio.Runner, engine: Engine, base: Path, versions: list[Version]) -> None:
        self._runner, self.engine, self.base, self.versions = runner, engine, base, versions

    def run(self, answer: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(answer)

    def load(self, version: Version) -> None:
        self.run(load_version(self.engine, version, 300))

    def greedy(self) -> list[tuple[list[int], float]]:
        draw = Draw(k=1, temperature=0.0, max_tokens=24, seed=0, logp=True)
        answers = self.run(self.engine.sample_all(PROMPTS, [draw] * len(PROMPTS)))
        return [(answer.token_ids, answer.logp) for [answer] in answers]

    def expected(self, version: Version) -> list[tuple[list[int], float]]:
        model: Any = AutoModelForCausalLM.from_pretrained(self.base)
        if version.number:
            model = peft.PeftModel.from_pretrained(model, version.path)
        model.eval()
        found = []
        for prompt in PROMPTS:
            ids = torch.tensor([prompt])
            tokens = model.generate(input_ids=ids, do_sample=False, max_new_tokens=24)[0, len(prompt) :]
            with torch.no_grad():
                logits_TV = model(torch.cat([ids[0], tokens])[None]).logits[0, len(prompt) - 1 : -1]
            logp_T = torch.log_softmax(logits_TV, -1).gather(1, tokens[:, None])
            found.append((tokens.tolist(), logp_T.mean().item()))
        return found

    def check(self, version: Version) -> None:
        for (tokens, logp), (wanted, wanted_logp) in zip(self.greedy(), self.expected(version), strict=True):
            assert tokens == wanted
            assert logp == pytest.approx(wanted_logp, abs=1e-3)


@pytest.fixture(scope="module", params=["llama", pytest.param("neox", marks=pytest.mark.slow)])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    base = make_model(tmp_path_factory.mktemp("models") / "base", request.param)
    weights = tmp_path_factory.mktemp("weights")
    versions = [Version(0, str(base), step=0), *(published(base, weights, number) for number in (1, 2))]
    with asyncio.Runner() as runner:
        engine = runner.run(Engine.start(str(base), CONFIG, threads=1, adapter_rank=LORA.rank))
        yield Running(runner, engine, base, versions)
        engine.stop()


def published(base: Path, weights: Path, number: int) -> Version:
    """An adapter as a train worker publishes it, with the probe that engines are checked by."""
    student = adapt(load_student(base), LORA)
    torch.manual_seed(number)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    tokens = torch.tensor([[*PROMPTS[0], 80, 81, 82]])
    with torch.no_grad():
        logp_TV = torch.log_softmax(student.eval()(tokens).logits[0, 5:-1], -1)
    logp = logp_TV.gather(1, tokens[0, 6:, None]).mean().item()
    directory = version_directory(weights, number, attempt=1)
    whole = gather_student(student, partitioned=False, rank=0, precision="fp32", adapter_only=True)
    probe = Probe(PROMPTS[0], [80, 81, 82], logp, "float32").fact()
    publish_directory(directory, lambda path: whole.write(path, base), {"number": number, FACT: probe})
    return Version(number, str(directory), step=number)


def test_tokens_are_those_of_peft_after_every_swap_and_back_to_the_base(running: Running) -> None:
    first, second = running.versions[1:]
    texts = {tuple(map(tuple, (tokens for tokens, _ in running.expected(version)))) for version in running.versions}
    assert len(texts) == 3, "the versions do not differ"
    for version in (running.versions[0], first, second, first, running.versions[0], second):
        running.load(version)
        running.check(version)


def test_only_one_adapter_is_held(running: Running) -> None:
    for version in (*running.versions[1:], running.versions[1]):
        running.load(version)
        assert len(running.run(running.engine._llm.list_loras())) == 1
    running.load(running.versions[0])
    assert not running.run(running.engine._llm.list_loras())


def test_a_completion_is_labelled_with_the_adapter_that_sampled_it(running: Running) -> None:
    for version in running.versions[1:]:
        running.load(version)
        [trace] = running.run(running.engine.sample(PROMPTS[0], Draw(1, 0.8, 4, seed=1)))
        assert trace.version == str(version.number)


def test_seeded_traces_are_the_same_alone_as_in_company(running: Running) -> None:
    running.load(running.versions[1])
    draws = [Draw(k=4, temperature=0.8, max_tokens=24, seed=100 + place) for place in range(len(PROMPTS))]
    alone = [running.run(running.engine.sample(prompt, draw)) for prompt, draw in zip(PROMPTS, draws, strict=True)]
    together = running.run(running.engine.sample_all(PROMPTS, draws))
    assert [[trace.token_ids for trace in traces] for traces in together] == [
        [trace.token_ids for trace in traces] for traces in alone
    ]


def test_blocks_share_an_engine_whose_adapters_change(running: Running) -> None:
    """Through LiveEngine: each block wholly by one version, the swap between them."""
    first, second = running.versions[1:]
    draw = Draw(k=1, temperature=0.0, max_tokens=24, seed=0)

    async def block(live: LiveEngine, version: Version) -> tuple[int, list[int]]:
        async with live.at(version.number, lambda: load_version(running.engine, version, 300)) as used:
            [trace] = await running.engine.sample(PROMPTS[0], draw)
            return used, trace.token_ids

    async def scene() -> list[tuple[int, list[int]]]:
        live = LiveEngine(running.engine, version=0)
        return list(await asyncio.gather(*(block(live, version) for version in (first, first, second, second))))

    wanted = {version.number: running.expected(version)[0][0] for version in (first, second)}
    assert running.run(scene()) == [(number, wanted[number]) for number in (1, 1, 2, 2)]


def test_a_broken_adapter_leaves_the_one_before_it(running: Running, tmp_path: Path) -> None:
    running.load(running.versions[1])
    (tmp_path / "adapter_config.json").write_text((Path(running.versions[1].path) / "adapter_config.json").read_text())
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever vLLM raises
        running.run(running.engine.reload(str(tmp_path), "9", 300))
    running.check(running.versions[1])


def test_a_whole_model_is_not_for_an_engine_that_takes_adapters(running: Running, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", "llama")
    with pytest.raises(ValueError, match="holds no adapter, and this engine takes only adapters of"):
        running.run(running.engine.reload(str(other), "9", 300))
