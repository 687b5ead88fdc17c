"""storage.mirror in a real S3 server: what arrives through faults, what is never half there, and a run from it alone."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orpo_ray.config import dump_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import InputError
from orpo_ray.mirror import Mirror, MirrorError, open_place
from orpo_ray.mirror.contents import newest_checkpoint
from orpo_ray.mirror.index import read_index
from orpo_ray.training.ledger import read_ledger
from orpo_ray.weights.published import check_published
from tests.integration.test_distill import kill_with_descendants
from tests.tiny.cluster import ROOT
from tests.tiny.models import make_model
from tests.tiny.object_store import BUCKET, ObjectStore, always, now_and_then, why_none
from tests.tiny.runs import tiny_config
from tests.unit.mirror.made_up import MadeUp

pytestmark = [pytest.mark.skipif(why_none() is not None, reason=str(why_none())), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with ObjectStore() as server:
        yield server


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    server.faults = lambda method, path, number: None
    server.requests.clear()
    return server


@pytest.fixture
def run(store: ObjectStore, tmp_path: Path) -> MadeUp:
    """A run's files, mirrored into a prefix of their own."""
    run = MadeUp(tmp_path)
    run.place = open_place(f"s3://{BUCKET}/{tmp_path.name}").below("demo")
    run.write_run()
    return run


def elsewhere(run: MadeUp, storage: Path) -> MadeUp:
    other = run.elsewhere(storage)
    other.place = run.place
    return other


def keys(run: MadeUp) -> set[str]:
    return run.place.below("files").names()


def start(run: MadeUp, said: list[tuple[str, dict[str, Any]]] | None = None, limit_s: float = 60) -> None:
    """A start of the run that finds everything done."""
    mirror = Mirror(run.place.url.removesuffix("/demo"), run.layout, 0.2, limit_s)
    told = said if said is not None else []
    mirror.check()
    with mirror.opened(), mirror.following(lambda kind, **fields: told.append((kind, fields))):
        mirror.settle()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.05)


def test_a_run_comes_back_from_the_bucket_as_it_went(run: MadeUp, tmp_path: Path) -> None:
    run.write("export/model.safetensors", "w" * 12_000_000)  # more than one part of an upload
    run.send()
    other = elsewhere(run, tmp_path / "other")
    assert other.fetch() == []
    told = ("run.json", "events.jsonl", "checkpoints/step-000002/orpo")
    assert {name: text for name, text in other.files().items() if not name.startswith(told)} == {
        name: text for name, text in run.files().items() if not name.startswith(told)
    }


def test_through_faults_now_and_then_all_of_it_arrives_and_all_of_it_comes_back(
    run: MadeUp, store: ObjectStore, tmp_path: Path
) -> None:
    """503, 500 and cut connections at every fourth request: both ways."""
    store.faults = now_and_then(4)
    start(run)
    other = elsewhere(run, tmp_path / "other")
    start(other)
    assert check_published(other.layout.checkpoints / "step-000002")["step"] == 2
    assert other.files()["weights/v000002-a001/model.safetensors"] == "weights 2"


def test_what_has_not_changed_costs_no_request_for_its_file(run: MadeUp, store: ObjectStore) -> None:
    run.send()
    store.requests.clear()
    run.write("attempts.json", '{"started": 2}')
    run.send()
    sent = {
        path.partition("?")[0].rpartition("/demo/")[2] for method, path in store.requests if method in ("PUT", "POST")
    }
    sent = {name for name in sent if name and not name.endswith("/")}  # what a store has in place of a directory
    (attempts,) = {name for name in sent if name.startswith("files/attempts.json")}
    assert sent - {"driver.json"} == {attempts, "index.json"}


def test_removed_checkpoints_leave_no_object(run: MadeUp) -> None:
    run.send()
    run.train(4)
    run.train(6, prune=2)
    run.send()
    assert keys(run) == run.index().objects()
    assert not [name for name in keys(run) if "step-000002/optimizer" in name]


def test_a_half_uploaded_checkpoint_is_never_used(run: MadeUp, store: ObjectStore, tmp_path: Path) -> None:
    """Its optimizer state arrived, its manifest did not: another machine goes on from the one before."""
    run.send()
    run.train(4)
    store.faults = always("PUT", "step-000004/orpo_ray_version.json")
    with pytest.raises(OSError, match="made to fail"):
        run.send()
    assert "checkpoints/step-000004/optimizer.pt" in keys(run)
    store.faults = lambda method, path, number: None
    other = elsewhere(run, tmp_path / "other")
    other.fetch()
    assert [path.name for path in other.layout.checkpoints.iterdir()] == ["step-000002"]
    assert check_published(other.layout.checkpoints / "step-000002")["step"] == 2


def test_an_object_that_somebody_deleted_costs_its_checkpoint_only(run: MadeUp, tmp_path: Path) -> None:
    run.send()
    run.train(4)
    run.send()
    run.place.below("files").remove("checkpoints/step-000004/optimizer.pt")
    other = elsewhere(run, tmp_path / "other")
    (said,) = other.fetch()
    assert "checkpoints/step-000004 is not whole in s3://" in said
    assert [path.name for path in other.layout.checkpoints.iterdir()] == ["step-000002"]


def test_a_bucket_that_is_away_for_a_time_is_caught_up_with(run: MadeUp, store: ObjectStore) -> None:
    """Nothing of the run waits; what is behind is one state, and comes once the bucket is back."""
    said: list[tuple[str, dict[str, Any]]] = []
    mirror = Mirror(run.place.url.removesuffix("/demo"), run.layout, 0.2, limit_s=2)
    mirror.check()
    with mirror.opened(), mirror.following(lambda kind, **fields: said.append((kind, fields))):
        until(lambda: "mirror.sent" in [kind for kind, _ in said])
        store.faults = lambda method, path, number: "unavailable"
        began = time.monotonic()
        for step in (4, 6, 8):
            run.train(step)
        assert time.monotonic() - began < 2, "training waited"
        until(lambda: "mirror.behind" in [kind for kind, _ in said])
        store.faults = lambda method, path, number: None
        until(lambda: "mirror.caught_up" in [kind for kind, _ in said])
        mirror.settle()
    sent = {path.split("/")[1] for path in run.index().files if path.startswith("checkpoints/")}
    assert sent == {"step-000002", "step-000008"}
    assert keys(run) == run.index().objects()


def test_a_bucket_that_stays_away_fails_the_run_and_the_next_start_mends_it(run: MadeUp, store: ObjectStore) -> None:
    store.faults = always("PUT", "/files/")
    with pytest.raises(MirrorError, match=r"is not whole: .* did not get there \(limits\.upload_s\)"):
        start(run, limit_s=1)
    store.faults = lambda method, path, number: None
    start(run)
    assert keys(run) == run.index().objects()


def test_a_bucket_that_is_not_there(store: ObjectStore) -> None:
    with pytest.raises(InputError) as error:
        open_place("s3://no-such-bucket/runs").check()
    assert str(error.value).startswith("storage.mirror: s3://no-such-bucket/runs is in no bucket that is there (")
    assert str(error.value).endswith("; make it, or correct the URL")


def test_a_server_that_is_not_there(store: ObjectStore) -> None:
    with pytest.raises(InputError, match=r"cannot be reached .*; check AWS_ENDPOINT_URL or endpoint_override"):
        open_place(f"s3://{BUCKET}/runs?endpoint_override=127.0.0.1:9&scheme=http").check()


def test_two_machines_at_once(run: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpo_ray.mirror.claim.BEAT_S", 0.2)
    mirror = Mirror(run.place.url.removesuffix("/demo"), run.layout, 0.2, 60)
    mirror.check()
    with mirror.opened(), mirror.following(lambda kind, **fields: None):
        with pytest.raises(InputError, match="another process works on this run"):
            start(elsewhere(run, tmp_path / "other"))
        mirror.settle()


# Enough for the first checkpoint to be in the mirror long before the end.
EPOCHS = 6


def write_configuration(directory: Path, mirror: str) -> Path:
    """A tiny run with recorded traces, of EPOCHS epochs with 3 steps of 8 rows."""
    student = make_model(directory / "student")
    traces = directory / "traces.jsonl"
    sums = [(a, b) for a in range(10) for b in range(10)]
    lines = [
        {"prompt_id": f"{a}+{b}", "text": text}
        for a, b in sums
        for text in (f"{a} and {b} make {a + b}. The answer is {a + b}.", f"Count on from {a}: the answer is {a + b}.")
    ]
    traces.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = yaml.safe_load(dump_config(tiny_config(Path("runs"), student, teacher={"path": str(traces)})))
    options["train"]["epochs"] = EPOCHS
    options["storage"] |= {"mirror": mirror, "mirror_every_s": 0.2}
    file = directory / "run.yaml"
    file.write_text(yaml.safe_dump(options))
    return file


def start_command(file: Path, machine: Path, server: ObjectStore) -> subprocess.Popen[str]:
    """`orpo-ray run`, with a working directory, and so a disk, of its own."""
    machine.mkdir()
    environment = os.environ | server.environment() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "orpo_ray.cli", "run", str(file)],
        cwd=machine,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_run_whose_machine_is_lost_goes_on_elsewhere_from_the_bucket_alone(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Driver, Ray, workers and engines killed, the disk gone; the same command on another one, with faults on that way."""
    mirror = f"s3://{BUCKET}/{tmp_path.name}"
    place = open_place(mirror).below("tiny")
    file = write_configuration(tmp_path, mirror)

    def mirrored_checkpoint() -> str | None:
        index = read_index(place)
        return newest_checkpoint(index.files) if index is not None else None

    lost = start_command(file, tmp_path / "lost", store)
    try:
        until(lambda: mirrored_checkpoint() or lost.poll() is not None, 600)
        assert lost.poll() is None, "it ended before it could be killed"
    finally:
        kill_with_descendants(lost)
    shutil.rmtree(tmp_path / "lost")
    begun = mirrored_checkpoint()
    assert begun is not None
    assert begun < f"step-{3 * EPOCHS:06d}"

    store.faults = now_and_then(9)
    other = start_command(file, tmp_path / "other", store)
    try:
        said, _ = other.communicate(timeout=600)
    finally:
        kill_with_descendants(other)
    assert other.returncode == 0, said
    assert f"storage.mirror: brought down from {mirror}/tiny" in said
    assert "TEACH    found" in said
    assert f"going on from step {int(begun.removeprefix('step-'))} of {3 * EPOCHS}" in said
    layout = RunLayout(tmp_path / "other" / "runs", "tiny")
    rows = sorted((line["row"], line["attempt"]) for line in read_ledger(layout.ledger))
    assert [row for row, _ in rows] == list(range(24 * EPOCHS))
    assert {attempt for _, attempt in rows} == {1, 2}
    store.faults = lambda method, path, number: None
    index = read_index(place)
    assert index is not None
    sent = {path: entry.size for path, entry in index.files.items()}
    assert sent["export/model.safetensors"] == (layout.export / "model.safetensors").stat().st_size
    assert sent["events.jsonl"] == layout.events.stat().st_size
    assert place.below("files").names() == index.objects()
