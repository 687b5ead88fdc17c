"""`validate` and `config schema`: what is printed, and each mistake in one message."""

import json
from pathlib import Path

import yaml

from tests.unit.cli.conftest import CONFIG, Call


def test_validate_prints_every_option_and_creates_nothing(call: Call) -> None:
    before = sorted(Path.cwd().rglob("*"))
    ended = call("validate", "toy.yaml", "--set", "train.lambda=0.1", "--set", "sampling.k=4")
    assert (ended.code, ended.err) == (0, "")
    resolved = yaml.safe_load(ended.out)
    assert (resolved["train"]["lambda"], resolved["sampling"]["k"], resolved["policy"]["phi"]) == (0.1, 4, 0.5)
    assert resolved["storage"] == {
        "path": "runs", "transport": "filesystem", "mirror": None, "mirror_every_s": 60.0,
    }  # fmt: skip
    assert sorted(Path.cwd().rglob("*")) == before


def test_what_validate_prints_is_a_configuration(call: Call) -> None:
    first = call("validate", "toy.yaml").out
    Path("again.yaml").write_text(first)
    assert call("validate", "again.yaml").out == first


def test_validate_names_every_mistake_at_once(call: Call) -> None:
    broken = CONFIG | {"policy": {"phi": 1.5}, "sampling": {"k": 0}, "trian": {}}
    Path("broken.yaml").write_text(yaml.safe_dump(broken))
    ended = call("validate", "broken.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[0] == "orpo-ray: broken.yaml: 3 mistakes"
    for part in ("policy.phi: 1.5 given", "sampling.k: 0 given", "trian: unknown option; did you mean `train`?"):
        assert part in ended.err
    assert "Traceback" not in ended.err


def test_a_file_that_is_not_there(call: Call) -> None:
    ended = call("validate", "nowhere.yaml")
    message = "orpo-ray: nowhere.yaml: no such file; give the path of a YAML configuration\n"
    assert (ended.code, ended.err) == (2, message)


def test_the_traceback_is_there_for_who_asks(call: Call, monkeypatch: object) -> None:
    import os

    import pytest

    from orpo_ray.errors import InputError

    os.environ["ORPO_RAY_DEBUG"] = "1"
    try:
        with pytest.raises(InputError, match="no such file"):
            call("validate", "nowhere.yaml")
    finally:
        del os.environ["ORPO_RAY_DEBUG"]


def test_schema_is_a_json_schema_of_every_section(call: Call) -> None:
    schema = json.loads(call("config", "schema").out)
    assert schema["additionalProperties"] is False
    assert {"task", "teacher", "student", "sampling", "policy", "train", "eval"} <= schema["properties"].keys()


def test_wrong_usage_is_no_traceback_either(call: Call) -> None:
    ended = call("run")
    assert ended.code == 2
    assert "Missing argument 'FILE'" in ended.err
