"""Where a run's files lie, below `storage.path`.

runs/                          storage.path
  traces/teacher-<key>/        teacher traces, shared by every run with the same fingerprint
  traces/student-<key>/        the initial student's traces
  converted/llama-<key>/       an InternLM2 student in the Llama layout, shared likewise
  demo/                        one run, by its name
    run.json                   phases, their fingerprints and results
    events.jsonl               what happened, one JSON object a line
    logs/                      what each worker did, one JSON object a line
    metrics.jsonl              one line an optimizer step, written by rank 0
    pairs/                     the pair source: prompts with their positives and initial negatives
    journal/                   sampled pair groups, written before they are trained on
    ledger/                    what the ranks trained on
    checkpoints/step-000120/   optimizer, scheduler, RNG and cursor together
    weights/v000003-a1/        published student versions
    evaluations/               accuracy and sample traces of each evaluated version
    export/                    the finished student
    mirror.json                what storage.mirror was last seen to hold; .mirror/ is what is on its way there
"""

import re
from dataclasses import dataclass
from pathlib import Path


def is_run_name(name: str) -> bool:
    """Whether it is one part of a path below the storage: letters, digits, dot, dash, underscore, no dot in front."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run. Nothing is created here."""

    storage: Path
    name: str

    @property
    def run(self) -> Path:
        return self.storage / self.name

    @property
    def state(self) -> Path:
        return self.run / "run.json"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def events(self) -> Path:
        return self.run / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.run / "libraries.log"

    @property
    def metrics(self) -> Path:
        return self.run / "metrics.jsonl"

    @property
    def pairs(self) -> Path:
        return self.run / "pairs"

    @property
    def journal(self) -> Path:
        return self.run / "journal"

    @property
    def ledger(self) -> Path:
        return self.run / "ledger"

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.run / "weights"

    @property
    def evaluations(self) -> Path:
        return self.run / "evaluations"

    @property
    def export(self) -> Path:
        return self.run / "export"

    @property
    def tensorboard(self) -> Path:
        return self.run / "tensorboard"

    @property
    def mlflow(self) -> Path:
        return self.run / "mlruns"

    @property
    def wandb(self) -> Path:
        return self.run / "wandb"

    @property
    def tracked(self) -> Path:
        return self.run / "tracked.json"

    @property
    def mirrored(self) -> Path:
        return self.run / "mirror.json"

    @property
    def outgoing(self) -> Path:
        return self.run / ".mirror"

    def traces(self, source: str, key: str) -> Path:
        """Directory of the traces of `source` ("teacher" or "student") with fingerprint `key`."""
        return self.storage / "traces" / f"{source}-{key}"
