"""A run's files without a run, and stores that fail when they are told to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem

from orpo_ray.config.layout import RunLayout
from orpo_ray.mirror.claim import Claim
from orpo_ray.mirror.fetching import Fetcher
from orpo_ray.mirror.index import Index, read_index, read_note
from orpo_ray.mirror.place import Place
from orpo_ray.mirror.sending import Sender, Sent
from orpo_ray.weights.published import publish_directory


class FakeFailingStore:
    """A directory that fails like a store on the network: at writes or reads of paths with one of `fails` in them."""

    def __init__(self) -> None:
        self._files = LocalFileSystem()
        self.fails: list[str] = []
        self.written: list[str] = []

    def open_output_stream(self, path: str) -> Any:
        self._may("write", path)
        self.written.append(path)
        return self._files.open_output_stream(path)

    def open_input_stream(self, path: str) -> Any:
        self._may("read", path)
        return self._files.open_input_stream(path)

    def delete_file(self, path: str) -> None:
        self._may("remove", path)
        self._files.delete_file(path)

    def delete_dir(self, path: str) -> None:
        self._may("remove", path)
        self._files.delete_dir(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def _may(self, what: str, path: str) -> None:
        if any(sign in f"{what} {path}" for sign in self.fails):
            raise OSError(f"AWS Error NETWORK_CONNECTION: could not {what}\nmore that nobody reads")


@dataclass
class MadeUp:
    """A run's directory on one machine, and the mirror of it.

    Attributes:
        step: of the newest checkpoint.
    """

    root: Path
    storage: Path = field(default=Path())
    store: FakeFailingStore = field(default_factory=FakeFailingStore)
    step: int = 0

    def __post_init__(self) -> None:
        self.storage = self.storage if self.storage.parts else self.root / "runs"
        self.layout = RunLayout(self.storage, "demo")
        self.layout.run.mkdir(parents=True, exist_ok=True)
        self.place = Place("file:///mirror", self.store, str(self.root / "mirror")).below("demo")  # type: ignore[arg-type]

    def write(self, name: str, text: str) -> Path:
        file = self.layout.run / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def append(self, name: str, lines: str) -> None:
        """As a run does: a file of lines only grows, also while it is sent."""
        file = self.layout.run / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as stream:
            stream.write(lines)

    def write_run(self) -> None:
        """Up to the first checkpoint."""
        for source in ("teacher", "student"):
            store = self.layout.traces(source, "k1")
            store.mkdir(parents=True, exist_ok=True)
            (store / "part-000000.parquet").write_text(f"traces of the {source}")
            (store / "manifest.json").write_text("{}")
        self.write("events.jsonl", '{"kind": "run.start"}\n{"kind": "ph')
        self.write("pairs/source.arrow", "pairs")
        self.write("lock", "me")
        self.write("libraries.log", "what libraries say")
        self.write("train/attempt-001/state", "Ray Train's own")
        self.write("attempts.json", '{"started": 1}')
        self.write_state()
        self.train(2)

    def write_state(self, state: str = "running") -> None:
        results = {
            name: {"state": "done", "result": {"path": str(self.layout.traces(source, "k1"))}}
            for name, source in (("TEACH", "teacher"), ("SEED", "student"))
        }
        self.write("run.json", json.dumps({"name": "demo", "state": state, "phases": results}))

    def train(self, step: int, *, prune: int | None = None) -> None:
        """On to `step`: sampled, trained, published, and a checkpoint; one of `prune` goes, with its version."""
        lines = "".join(f'{{"step": {number}}}\n' for number in range(self.step + 1, step + 1))
        self.step = step
        self.write(f"journal/step-{step:06d}/rows-{step}.parquet", f"sampled for {step}")
        self.append("ledger/attempt-001-rank-0.jsonl", lines)
        self.append("metrics.jsonl", lines)
        version = self.layout.weights / f"v{step:06d}-a001"
        facts = {"number": step, "step": step, "epoch": None}
        publish_directory(
            version, lambda path: (path / "model.safetensors").write_text(f"weights {step}") and None, facts
        )
        checkpoint = self.layout.checkpoints / f"step-{step:06d}"
        facts = {"step": step, "version": step, "version_path": str(version), "version_step": step, "world_size": 1}
        publish_directory(
            checkpoint, lambda path: (path / "optimizer.pt").write_text(f"moments {step}") and None, facts
        )
        if prune is not None:
            self.remove(f"checkpoints/step-{prune:06d}")
            self.remove(f"weights/v{prune:06d}-a001")

    def remove(self, name: str) -> None:
        import shutil

        shutil.rmtree(self.layout.run / name)

    @contextmanager
    def sender(self) -> Iterator[Sender]:
        claim = Claim(self.place, self.layout.run)
        claim.take()
        first = read_index(self.place) or Index.first(self.storage)
        yield Sender(self.place, self.layout, claim, first, read_note(self.layout.mirrored))
        claim.release()

    def send(self) -> Sent:
        """One pass of a driver of its own."""
        with self.sender() as sender:
            return sender.send((), lambda: None)

    def index(self) -> Index:
        index = read_index(self.place)
        assert index is not None
        return index

    def elsewhere(self, storage: Path) -> "MadeUp":
        """The same mirror, seen from a machine that has nothing."""
        return MadeUp(self.root, storage, self.store)

    def fetch(self) -> list[str]:
        return Fetcher(self.place, self.layout, self.index()).fetch(lambda: None)

    def files(self) -> dict[str, str]:
        """Content of the run's files here, but those that are of use here only."""
        own = ("lock", "mirror.json", "libraries.log", "train/")
        found = {str(file.relative_to(self.layout.run)): file for file in self.layout.run.rglob("*") if file.is_file()}
        return {name: file.read_text() for name, file in sorted(found.items()) if not name.startswith(own)}
