"""Which options matter to a result, and how two configurations are compared."""

from typing import Any

import pytest

from orpo_ray.config import parse_config
from orpo_ray.config.fingerprint import changed_fields, fingerprint, held_out, what_matters
from tests.unit.config.data import MINIMAL, changed


def matters(changes: dict[str, Any]) -> dict[str, Any]:
    return what_matters(parse_config(changed(changes)))


def test_the_same_data_have_the_same_fingerprint_on_any_machine() -> None:
    """sha256 of the JSON text `[{"a": 1, "b": "é"}]`, by `sha256sum`."""
    assert fingerprint({"b": "é", "a": 1}) == fingerprint({"a": 1, "b": "é"}) == "5c3c0e9466b50b57"


def test_different_data_have_different_fingerprints() -> None:
    assert len({fingerprint(part) for part in (1, "1", 1.5, None, [1], {"a": 1}, {"a": 2}, {})}) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"storage.path": "elsewhere"},
        {"resources.samplers": 4},
        {"limits.failures": 9},
        {"tracking.tensorboard": False},
        {"teacher.concurrency": 3},
        {"teacher.serve.max_replicas": 4},
        {"train.checkpoint_every": 7},
        {"train.micro_batch": 4},
        {"train.workers": 1},
        {"eval.samples_kept": 1},
        {"eval.max_tokens": 20},
        {"eval.temperature": 0.5},
        {"task.validation_size": 10, "export.select": "best"},
        {"task.test_size": 7},
        {"task.test_path": "test.jsonl"},
        {"student.engine.kv_cache_mib": 64},
        {"student.engine.max_num_seqs": 8},
        {"teacher.engine.gpu_memory": 0.5},
    ],
)
def test_how_and_where_a_run_works_and_is_evaluated_is_free_to_change(changes: dict[str, Any]) -> None:
    assert matters(changes) == matters({})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sampling.k": 4}, "sampling.k: was 8, is 4"),
        ({"policy.phi": 0.7}, "policy.phi: was 0.5, is 0.7"),
        ({"policy.refresh": 10}, "policy.refresh: was 'epoch', is 10"),
        ({"train.lambda": 0.1}, "train.lambda: was 1.0, is 0.1"),
        ({"train.global_batch": 64}, "train.global_batch: was 32, is 64"),
        ({"seed": 1}, "seed: was 0, is 1"),
        ({"task.train_size": 9}, "task.train_size: was None, is 9"),
        ({"task.path": "rows.jsonl"}, "task.path: was None, is 'rows.jsonl'"),
        ({"student.engine.max_model_len": 512}, "student.engine.max_model_len: was 1024, is 512"),
        ({"teacher.engine.dtype": "float32"}, "teacher.engine.dtype: was 'auto', is 'float32'"),
        ({"student.engine.dtype": "float32"}, "student.engine.dtype: was 'auto', is 'float32'"),
        ({"train.deepspeed": {"zero": {"a": 1}}}, "train.deepspeed.zero.a: was None, is 1"),
    ],
)
def test_what_changes_a_result_is_named(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in changed_fields(matters({}), matters(changes))


def test_a_further_teachers_options_are_told_one_by_one() -> None:
    def with_second(**options: Any) -> dict[str, Any]:
        return matters({"more_teachers": [{"backend": "recorded", "path": "more.jsonl"} | options]})

    assert with_second(concurrency=3) == with_second()
    assert changed_fields(with_second(), with_second(weight=2.0)) == ["more_teachers.0.weight: was 1.0, is 2.0"]
    assert "more_teachers.0.path: was None, is 'more.jsonl'" in changed_fields(matters({}), with_second())


def test_the_options_of_the_held_out_splits_are_kept_apart() -> None:
    """They matter where they move training rows, which only the rows can tell."""
    before, after = (held_out(parse_config(changed(changes))) for changes in ({}, {"task.test_size": 7}))
    assert changed_fields(before, after) == ["task.test_size: was 200, is 7"]


def test_an_unchanged_configuration_has_no_changed_field() -> None:
    assert changed_fields(matters({}), what_matters(parse_config(MINIMAL))) == []
