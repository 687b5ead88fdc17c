"""Each way in which a model directory can be unfit, and what is said of it."""

import json
import shutil
from pathlib import Path

import pytest

from orpo_ray.engine.model_check import check_model
from orpo_ray.errors import InputError
from tests.tiny.models import make_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def edit_config(model: Path, **values: object) -> None:
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def complaint(model: Path | str, role: str = "student") -> str:
    with pytest.raises(InputError) as raised:
        check_model(str(model), role)  # type: ignore[arg-type]
    message = str(raised.value)
    assert message.startswith(f"{role}.model: {model}")
    return message


def test_a_whole_model_passes(model: Path) -> None:
    check_model(str(model), "student")
    check_model(str(model), "teacher")


def test_no_directory(tmp_path: Path) -> None:
    assert "no such directory" in complaint(tmp_path / "nothing")
    assert "no such directory" in complaint("./models/nothing")
    check_model("owner/name", "student")  # a hub name is the hub's to judge


def test_a_file_is_no_directory(model: Path) -> None:
    assert "no such directory" in complaint(model / "config.json")


def test_no_configuration(model: Path) -> None:
    (model / "config.json").unlink()
    assert "has no config.json" in complaint(model)


def test_broken_configuration(model: Path) -> None:
    (model / "config.json").write_text("{")
    assert "config.json cannot be read" in complaint(model)


def test_no_architecture(model: Path) -> None:
    edit_config(model, architectures=None)
    assert "names no `architectures`" in complaint(model)


def test_no_tokenizer(model: Path) -> None:
    for file in model.glob("tokenizer*"):
        file.unlink()
    assert "has no tokenizer" in complaint(model)


def test_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert "has no weights (*.safetensors)" in complaint(model)
    (model / "pytorch_model.bin").write_bytes(b"x")
    assert "has no weights (*.safetensors)" in complaint(model)
    check_model(str(model), "teacher")  # which is only read


def test_a_missing_shard(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names model-00002-of-00002.safetensors, which are not there" in complaint(model)


def test_weights_cut_short(model: Path) -> None:
    file = model / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    assert f"has {len(content) - 100} of {len(content)} bytes" in complaint(model)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_weights_that_are_none(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert "model.safetensors is not a whole safetensors file" in complaint(model)


def test_an_architecture_that_vllm_lacks(model: Path) -> None:
    edit_config(model, architectures=["PerceiverForMaskedLM"])
    assert "vLLM has no architecture PerceiverForMaskedLM" in complaint(model)
    edit_config(model, auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    check_model(str(model), "student", trust_remote_code=True)
