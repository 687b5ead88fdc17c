"""A version's directory appears whole or not at all."""

from pathlib import Path

import pytest

from orpo_ray.weights.published import (
    IncompleteVersionError,
    check_published,
    drop_newer,
    publish_directory,
    remove_versions,
    version_directory,
)


def publish(weights: Path, number: int, attempt: int = 1) -> Path:
    directory = version_directory(weights, number, attempt)
    publish_directory(
        directory, lambda path: (path / "model.safetensors").write_bytes(b"12345") and None, {"number": number}
    )
    return directory


def test_the_manifest_says_what_is_there(tmp_path: Path) -> None:
    facts = check_published(publish(tmp_path, 3))
    assert facts["number"] == 3
    assert facts["files"] == {"model.safetensors": 5}


def test_a_write_that_fails_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        (path / "model.safetensors").write_bytes(b"12")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        publish_directory(tmp_path / "v000001-a001", fail, {})
    assert not (tmp_path / "v000001-a001").exists()


def test_a_truncated_file_is_never_taken_for_whole(tmp_path: Path) -> None:
    directory = publish(tmp_path, 1)
    (directory / "model.safetensors").write_bytes(b"123")
    with pytest.raises(IncompleteVersionError, match="3 bytes, the manifest says 5"):
        check_published(directory)


def test_a_directory_without_manifest_is_not_whole(tmp_path: Path) -> None:
    directory = publish(tmp_path, 1)
    (directory / "orpo_ray_version.json").unlink()
    with pytest.raises(IncompleteVersionError, match="no readable manifest"):
        check_published(directory)


def test_a_directory_left_by_a_dead_attempt_is_replaced(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    assert check_published(publish(tmp_path, 1))["number"] == 1


def test_what_is_newer_than_the_checkpoint_is_dropped(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, number)
    (tmp_path / "v000002-a002.partial").mkdir()
    assert drop_newer(tmp_path, 1) == ["v000002-a001", "v000002-a002.partial", "v000003-a001"]
    assert [path.name for path in tmp_path.iterdir()] == ["v000001-a001"]


def test_removed_versions_are_gone(tmp_path: Path) -> None:
    directory = publish(tmp_path, 1)
    remove_versions([str(directory), str(tmp_path / "never-there")])
    assert list(tmp_path.iterdir()) == []
