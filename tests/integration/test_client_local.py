"""`Client.local()`: a cluster of the client's own, which ends with it."""

from pathlib import Path

import psutil
import pytest
import yaml

from orpo_ray import Client
from orpo_ray.client import RefusedError, RunState
from tests.tiny.api import fake_api
from tests.tiny.cluster import ROOT
from tests.tiny.models import make_model
from tests.tiny.runs import tiny_config
from tests.tiny.sums_api import sums_script


@pytest.fixture(autouse=True)
def of_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's directory, and nothing that leads to another cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.timeout(200)
def test_its_cluster_takes_jobs_and_ends_with_it() -> None:
    me = psutil.Process()
    before = set(me.children(recursive=True))
    with Client.local() as client:
        assert client.runs() == []
        run = client.submit(tiny_config(Path("storage"), Path("nowhere")))
        with pytest.raises(RefusedError, match=r"student\.model: .*nowhere"):
            run.wait(timeout=120)
        assert set(me.children(recursive=True)) - before != set()
    assert set(me.children(recursive=True)) - before == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_whole_run_with_the_callers_paths(tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "student")
    with fake_api(sums_script) as teacher:
        asks = {"backend": "openai", "model": "fake", "base_url": teacher.base_url}
        config = tiny_config(Path("storage"), Path("models/student"), name="whole", teacher=asks)
        Path("run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True)))
        with Client.local() as client:
            run = client.submit("run.yaml")
            assert run.wait(timeout=500).state is RunState.DONE
            result = run.result()
    assert Path(result.path).is_relative_to(tmp_path / "storage" / "whole")
    assert Path(result.path, "model.safetensors").is_file()
    assert [row.epoch for row in result.evaluations] == [0, 1, 2]
