"""Where a run lives: data, storage, trackers, and the resources of each group of actors."""

import re
from typing import Literal

from pydantic import field_validator, model_validator

from orpo_ray.config.judge import JudgeConfig
from orpo_ray.config.secrecy import MirrorUrl, PublicUrl
from orpo_ray.config.section import Section, option, required


class TaskConfig(Section):
    """The task and its rows. Train, validation and test are kept apart: a question is in one split only."""

    name: str = required(
        "gsm8k, arc_challenge, openbookqa, strategyqa, medqa, arithmetic, open_ended, or `package.module:Class`."
    )
    path: str | None = option(
        None,
        "JSONL or Parquet file, or Hugging Face data set name, of the training rows; the task's own where not set.",
    )
    validation_path: str | None = option(None, "Rows of the validation split; cut off the training rows where not set.")
    test_path: str | None = option(None, "Rows of the test split; cut off the training rows where not set.")
    train_size: int | None = option(None, "Training prompts; all where not set.", unit="prompts", ge=1)
    validation_size: int = option(0, "Validation prompts.", unit="prompts", ge=0)
    judge: JudgeConfig | None = option(
        None, "A model that marks answers in place of the task's own verifier; open-ended tasks need one."
    )
    test_size: int = option(200, "Test prompts.", unit="prompts", ge=1)


class StorageConfig(Section):
    """The run's files."""

    path: str = option(
        "runs", "Directory shared by every node; a run lies in it under its name, traces by fingerprint."
    )
    transport: Literal["filesystem", "shm", "nccl"] = option(
        "filesystem",
        "How a new student gets to the engines: through `path`; through the memory (/dev/shm) of the node that trains, for "
        "engines on that node; or sent from process to process, by NCCL between GPUs and gloo between CPUs. The last two "
        "are experimental; where they fail, an engine reads from `path`.",
    )
    mirror: MirrorUrl = option(
        None,
        "URL of an object store or a directory below which a copy of the run is kept, as s3://bucket/prefix, gs://… or "
        "file:///…; a start that does not find the run in `path` goes on from it.",
    )
    mirror_every_s: float = option(60, "Between two looks at what the mirror lacks.", unit="seconds", gt=0)


class TrackingConfig(Section):
    """Metrics for people."""

    tensorboard: bool = option(True, "Write TensorBoard event files beside the run.")
    mlflow: bool = option(False, "Log to MLflow; needs the extra `mlflow`.")
    mlflow_uri: PublicUrl = option(
        None, "MLflow's tracking URI, as http://host:5000; a directory `mlruns` beside the run where not set."
    )
    wandb: Literal["off", "offline", "online"] = option(
        "off", "Log to Weights & Biases, into files beside the run or to its server; needs the extra `wandb`."
    )
    project: str = option("orpo-ray", "Experiment in MLflow, project in Weights & Biases.")


Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
Role = Literal["teacher", "sampler", "evaluator", "trainer"]
# The label that Ray itself gives a node with an accelerator.
ACCELERATOR_LABEL = "ray.io/accelerator-type"


class ResourcesConfig(Section):
    """What each group of actors asks of Ray, and of which nodes."""

    samplers: int = option(1, "Student sampler actors, one vLLM engine each.", unit="actors", ge=1)
    samplers_min: int = option(
        1,
        "Fewest samplers that a run goes on with where the cluster has no place for all, until there is.",
        unit="actors",
        ge=1,
    )
    sampler_cpus: float = option(1, "Logical CPUs of a sampler.", unit="CPUs", ge=0)
    sampler_gpus: float = option(0, "GPUs of a sampler; a share below 1 leaves the rest to others.", unit="GPUs", ge=0)
    sampler_accelerator: str | None = option(None, "GPU type of the samplers' nodes, as Ray names it: H100, L4, …")
    sampler_labels: dict[str, str] = option(
        {},
        "Ray node labels that a sampler's node must have; values as Ray's selectors have them: `a`, `!a`, `in(a,b)`.",
    )
    evaluator_cpus: float = option(1, "Logical CPUs of the evaluator.", unit="CPUs", ge=0)
    evaluator_gpus: float = option(0, "GPUs of the evaluator.", unit="GPUs", ge=0)
    evaluator_accelerator: str | None = option(
        None, "GPU type of the evaluator's node; the samplers' where neither it nor evaluator_labels is set."
    )
    evaluator_labels: dict[str, str] | None = option(
        None, "Ray node labels that the evaluator's node must have; the samplers' where not set."
    )
    trainer_cpus: float = option(1, "Logical CPUs of a train worker.", unit="CPUs", ge=0)
    trainer_gpus: float = option(
        0, "GPUs of a train worker; a share below 1 leaves the rest to a sampler.", unit="GPUs", ge=0, le=1
    )
    trainer_accelerator: str | None = option(None, "GPU type of the train workers' nodes.")
    trainer_labels: dict[str, str] = option({}, "Ray node labels that a train worker's node must have.")
    trainer_strategy: Strategy = option(
        "PACK", "How the train workers are laid over nodes: on few or on many, by preference or strictly."
    )
    teacher_cpus: float = option(1, "Logical CPUs of a teacher replica.", unit="CPUs", ge=0)
    teacher_gpus: float = option(0, "GPUs of a teacher replica.", unit="GPUs", ge=0)
    teacher_accelerator: str | None = option(None, "GPU type of the teacher's nodes.")
    teacher_labels: dict[str, str] = option({}, "Ray node labels that a teacher replica's nodes must have.")
    teacher_strategy: Strategy = option(
        "PACK", "How the GPUs of one replica are laid over nodes; STRICT_PACK keeps a replica on one node."
    )
    threads: int = option(1, "OpenMP threads of each engine and worker on a CPU.", unit="threads", ge=1)
    block_rows: int | None = option(
        None,
        "Plan rows that a sampler takes at once; block_rows × workers must divide global_batch.",
        unit="rows",
        ge=1,
    )
    blocks_in_flight: int = option(4, "Blocks that one sampler works on at a time.", unit="blocks", ge=1)
    grow_every_s: float = option(
        600,
        "Time between two looks for a place for missing workers and samplers. Where there is one, training begins anew "
        "from its next checkpoint, with them, and so never more often than this.",
        unit="seconds",
        gt=0,
    )

    @field_validator("sampler_labels", "evaluator_labels", "trainer_labels", "teacher_labels")
    @classmethod
    def _labels_are_selectors(cls, labels: dict[str, str] | None) -> dict[str, str] | None:
        for key, value in (labels or {}).items():
            if not re.fullmatch(_LABEL_KEY, key):
                raise ValueError(f"`{key}` is no label's name; take `name` or `prefix/name`, as orpo-ray.io/role")
            if not re.fullmatch(_SELECTOR, value):
                raise ValueError(f"`{value}` is no selector of label {key}; take `a`, `!a`, `in(a, b)` or `!in(a, b)`")
        return labels

    def node_labels(self, role: Role) -> dict[str, str]:
        """What `role`'s nodes must be, as a Ray label selector; empty where any node will do."""
        if role == "evaluator" and self.evaluator_labels is None and self.evaluator_accelerator is None:
            return self.node_labels("sampler")
        accelerator: str | None = getattr(self, f"{role}_accelerator")
        labels: dict[str, str] = getattr(self, f"{role}_labels") or {}
        return labels | ({ACCELERATOR_LABEL: accelerator} if accelerator else {})


# Kubernetes' rules for labels, which Ray follows, and Ray's selectors of their values.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_SELECTOR = rf"!?(?:{_NAME}|in\({_NAME}(?:, ?{_NAME})*\))"


class LimitsConfig(Section):
    """Each wait that can hang, and how long it may. Past it the run ends and says what it waited for."""

    start_s: float = option(600, "An actor, engine or replica that starts.", unit="seconds", gt=0)
    place_s: float = option(
        120,
        "Workers and samplers that look for a place, before training goes on with fewer; a sampler that was lost, before "
        "it goes on without. An autoscaler, where there is one, has start_s to bring the nodes.",
        unit="seconds",
        gt=0,
    )
    teach_s: float = option(3600, "TEACH without one finished block of prompts.", unit="seconds", gt=0)
    gate_s: float = option(1800, "A sampler that waits at the gate for the trainer.", unit="seconds", gt=0)
    reload_s: float = option(300, "A reload of weights in an engine.", unit="seconds", gt=0)
    generate_s: float = option(1800, "One block's sampling.", unit="seconds", gt=0)
    collective_s: float = option(1800, "A collective of the train workers.", unit="seconds", gt=0)
    evaluate_s: float = option(3600, "The evaluator, once training is done.", unit="seconds", gt=0)
    upload_s: float = option(
        600,
        "Files that do not get to storage.mirror; training goes on past it, the run's end does not.",
        unit="seconds",
        gt=0,
    )
    failures: int = option(
        3,
        "Restarts after a fault before the run ends: of the worker group from its last checkpoint, of a sampler in one "
        "such attempt, of the evaluator.",
        ge=0,
    )

    @model_validator(mode="after")
    def _gate_waits_longest(self) -> "LimitsConfig":
        if self.gate_s < self.reload_s:
            raise ValueError(
                f"gate_s is {self.gate_s:g} but reload_s is {self.reload_s:g}: the gate waits for reloads elsewhere, "
                "so give it at least as long"
            )
        return self
