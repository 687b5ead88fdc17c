"""The teacher as KubeRay's RayService deploys it: Serve builds it from its own configuration, and an OpenAI client asks it."""

import time
from pathlib import Path

import openai
import pytest

from orpo_ray.config import dump_config
from orpo_ray.deploy.kuberay import serve_config
from tests.tiny.models import make_model
from tests.tiny.runs import tiny_config


@pytest.mark.slow
def test_serves_own_configuration_builds_the_teacher(ray_session: None, tmp_path: Path) -> None:
    from ray import serve
    from ray.serve.context import _get_global_client  # what `serve deploy` and KubeRay come to
    from ray.serve.schema import ServeDeploySchema

    model = make_model(tmp_path / "tiny-teacher", "llama")
    engine = {"dtype": "float32", "max_model_len": 128, "prefill_tokens": 512, "kv_cache_mib": 64}
    config = tiny_config(
        tmp_path / "runs",
        Path("student"),
        teacher={"backend": "serve", "path": None, "model": str(model), "engine": engine},
    )
    file = tmp_path / "run.yaml"
    file.write_text(dump_config(config))
    told = serve_config()
    (application,) = told["applications"]
    application["args"]["config"] = str(file)
    port = 8127
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(told))
        end = time.monotonic() + 240
        while (state := serve.status().applications.get("teacher")) is None or state.status != "RUNNING":
            assert state is None or state.status != "DEPLOY_FAILED", state.message
            assert time.monotonic() < end, state
            time.sleep(1)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        answer = client.chat.completions.create(
            model="tiny-teacher", messages=[{"role": "user", "content": "What is 1 plus 2?"}], max_tokens=4
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 1
    finally:
        serve.shutdown()
