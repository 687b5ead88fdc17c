"""A real teacher: a tiny model in vLLM under Ray Serve, reached by the `openai` client and by TEACH."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from orpo_ray.client.local import free_ports
from orpo_ray.config import RunConfig, dump_config
from orpo_ray.errors import InputError, WaitTimeout
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.teach import Teach
from orpo_ray.teacher.serving import serve_teacher
from orpo_ray.traces.store import TraceStore
from tests.tiny.models import make_model
from tests.tiny.processes import session_processes
from tests.tiny.runs import context_of, tiny_config

ROOT = Path(__file__).parents[2]
ENGINE = {"dtype": "float32", "max_model_len": 128, "prefill_tokens": 512, "max_num_seqs": 32, "kv_cache_mib": 64}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny-teacher", "llama")


def config_for(storage: Path, model: Path, **sections: Any) -> RunConfig:
    teacher = {"backend": "serve", "model": str(model), "path": None, "engine": ENGINE, "serve": {"port": 0}}
    return tiny_config(
        storage,
        Path("student"),
        task={"name": "tests.tiny.noise:NoiseTask", "train_size": 40, "test_size": 8} | sections.pop("task", {}),
        teacher=teacher | sections.pop("teacher", {}),
        sampling={"k": 3, "max_tokens": 24},
        **sections,
    )


def engines() -> list[psutil.Process]:
    return session_processes("VLLM") + session_processes("ServeReplica")


@pytest.fixture(scope="module")
def taught(ray_session: None, model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    """TEACH has run with the served teacher; its result is under `results`."""
    context = context_of(config_for(tmp_path_factory.mktemp("taught"), model))
    context.results["TEACH"] = Teach().run(context)
    return context


def test_a_served_teacher_teaches_and_leaves_nothing_running(taught: RunContext) -> None:
    result = taught.results["TEACH"]
    assert (result["prompts"], result["traces"]) == (40, 120)
    assert 0 < result["kept"] <= result["right"] < 120
    assert result["test"]["total"] == 8
    assert engines() == []
    (ready,) = [facts for kind, facts in taught.live["said"] if kind == "teach.ready"]
    with pytest.raises(OSError, match="refused"), socket.create_connection(_address(ready["url"]), timeout=1):
        pass


def test_the_openai_client_samples_again_what_was_sampled(taught: RunContext, model: Path, tmp_path: Path) -> None:
    """On an address that others reach too, and so behind a key."""
    with serve_teacher(config_for(tmp_path, model, teacher={"serve": {"port": 0, "host": "0.0.0.0"}})) as endpoint:
        client = openai.OpenAI(base_url=endpoint.base_url, api_key=endpoint.key)
        _nobody_else_gets_in(endpoint.base_url)
        assert [served.id for served in client.models.list()] == ["tiny-teacher"]
        _the_client_works(client)
        _what_was_sampled_is_sampled_again(client, taught.results["TEACH"])
    assert engines() == []


def _nobody_else_gets_in(base_url: str) -> None:
    for key in ("none", "0" * 43):
        with pytest.raises(openai.AuthenticationError, match="asks for a key"):
            openai.OpenAI(base_url=base_url, api_key=key).models.list()


def _the_client_works(client: openai.OpenAI) -> None:
    def say(n: int, seed: int) -> list[str | None]:
        answer = client.chat.completions.create(
            model="tiny-teacher", messages=[{"role": "user", "content": "Hi"}], n=n, seed=seed, max_tokens=12
        )
        return [choice.message.content for choice in answer.choices]

    three = say(3, seed=7)
    assert len(set(three)) == 3
    assert say(3, seed=7) == three
    # Trace i of a request is what seed + i samples alone: what a trace's provenance says.
    assert say(1, seed=9) == three[2:]
    answer = client.chat.completions.create(
        model="tiny-teacher", messages=[{"role": "user", "content": "Hi"}], max_tokens=1, temperature=0
    )
    assert answer.usage is not None
    # A model without a chat template reads the plain prompt: "Hi\n\nAnswer:\n" has 12 bytes, some merged into one token.
    assert answer.usage.prompt_tokens <= 12
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(
            model="tiny-teacher", messages=[{"role": "user", "content": "x" * 500}], max_tokens=1
        )


def _what_was_sampled_is_sampled_again(client: openai.OpenAI, result: dict[str, Any]) -> None:
    """In another engine, one prompt at a time, from nothing but the provenance that the store keeps."""
    store = TraceStore.find(Path(result["path"]), result["key"])
    assert store is not None
    for prompt_id, traces in list(store.prompts())[:10]:
        a, b = prompt_id.split("+")
        answer = client.chat.completions.create(
            model="tiny-teacher",
            messages=[{"role": "user", "content": f"What is {a} plus {b}?"}],
            n=len(traces),
            seed=traces[0].seed,
            temperature=traces[0].temperature,
            max_tokens=24,
        )
        assert [choice.message.content for choice in answer.choices] == [trace.text for trace in traces]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["ServeReplica:orpo-ray-teacher:LLMServer", "VLLM::EngineCore", "ServeController"])
def test_what_serves_the_teacher_is_killed_and_teach_goes_on(
    victim: str, ray_session: None, model: Path, tmp_path: Path
) -> None:
    """A replica, its engine, Serve's controller: each comes back, and no trace is missing or there twice."""
    prompts = 92  # all that there are
    context = context_of(config_for(tmp_path, model, task={"train_size": prompts}))

    def kill_once_it_teaches() -> int:
        end = time.monotonic() + 240
        while not any(tmp_path.glob("traces/teacher-*/part-*")):
            assert time.monotonic() < end, "no block was finished"
            time.sleep(0.05)
        killed = session_processes(victim)
        for process in killed:
            process.kill()
        return len(killed)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_once_it_teaches)
        result = Teach().run(context)
        assert killing.result() == 1
    assert (result["prompts"], result["traces"]) == (prompts, 3 * prompts)
    store = TraceStore.find(Path(result["path"]), result["key"])
    assert store is not None
    assert [len(traces) for _, traces in store.prompts()] == [3] * prompts
    assert engines() == []


@pytest.mark.usefixtures("ray_session")
def test_a_teacher_that_is_not_up_in_time_says_what_was_missing(tmp_path: Path, model: Path) -> None:
    config = config_for(tmp_path, model, limits={"start_s": 1})
    said = r"limits.start_s: the teacher was not up within 1 s; waited for HTTP proxy [A-Z]+"
    with pytest.raises(WaitTimeout, match=said), serve_teacher(config):
        pass
    assert engines() == []


@pytest.mark.usefixtures("ray_session")
def test_an_application_of_someone_elses_stays_where_it_is(tmp_path: Path, model: Path) -> None:
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Other:
        def __call__(self) -> str:
            return "still here"

    patient = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120"}
    (port,) = free_ports(1)
    try:
        serve.start(http_options={"port": port}, controller_options={"runtime_env": {"env_vars": patient}})
        handle = serve.run(Other.bind(), name="other", route_prefix="/")
        with pytest.raises(WaitTimeout), serve_teacher(config_for(tmp_path, model, limits={"start_s": 1})):
            pass
        assert set(serve.status().applications) == {"other"}
        assert handle.remote().result(timeout_s=60) == "still here"
    finally:
        serve.shutdown()


@pytest.mark.usefixtures("ray_session")
def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path, model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = config_for(tmp_path, model, teacher={"serve": {"port": port}})
        with (
            pytest.raises(InputError, match=rf"teacher.serve.port: 127.0.0.1:{port} cannot be used"),
            serve_teacher(config),
        ):
            pass


@pytest.mark.usefixtures("ray_session")
def test_a_model_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"teacher.model: .*no such directory"):
        Teach().run(context_of(config_for(tmp_path, tmp_path / "nothing")))


def test_the_command_serves_until_ctrl_c_says_where_and_then_stops(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(dump_config(config_for(tmp_path, model)))
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from orpo_ray.cli import main; main()",
            "teacher",
            str(file),
            "--set",
            f"student.model={model}",
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("teacher tiny-teacher at "))
        client = openai.OpenAI(base_url=line.split()[3], api_key="none")
        answer = client.chat.completions.create(
            model="tiny-teacher", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
        assert len(answer.choices) == 1
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert "stopping the teacher" in process.stdout.read()
        end = time.monotonic() + 20
        while any(child.is_running() for child in children) and time.monotonic() < end:
            time.sleep(0.2)
        assert [child for child in children if child.is_running()] == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
    return host, int(port)
