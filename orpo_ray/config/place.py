"""Where a run lives: data, storage, trackers, and the resources of each group of actors."""

from pydantic import model_validator

from orpo_ray.config.section import Section, option, required


class TaskConfig(Section):
    """The task and its rows. Train, validation and test are kept apart: a question is in one split only."""

    name: str = required("gsm8k, arc_challenge, openbookqa, strategyqa, medqa, arithmetic, or `package.module:Class`.")
    path: str | None = option(
        None,
        "JSONL or Parquet file, or Hugging Face data set name, of the training rows; the task's own where not set.",
    )
    validation_path: str | None = option(None, "Rows of the validation split; cut off the training rows where not set.")
    test_path: str | None = option(None, "Rows of the test split; cut off the training rows where not set.")
    train_size: int | None = option(None, "Training prompts; all where not set.", unit="prompts", ge=1)
    validation_size: int = option(0, "Validation prompts.", unit="prompts", ge=0)
    test_size: int = option(200, "Test prompts.", unit="prompts", ge=1)


class StorageConfig(Section):
    """The run's files."""

    path: str = option(
        "runs", "Directory shared by every node; a run lies in it under its name, traces by fingerprint."
    )


class TrackingConfig(Section):
    """Metrics for people."""

    tensorboard: bool = option(True, "Write TensorBoard event files beside the run.")


class ResourcesConfig(Section):
    """What each group of actors asks of Ray."""

    samplers: int = option(1, "Student sampler actors, one vLLM engine each.", unit="actors", ge=1)
    sampler_cpus: float = option(1, "Logical CPUs of a sampler.", unit="CPUs", ge=0)
    sampler_gpus: float = option(0, "GPUs of a sampler.", unit="GPUs", ge=0)
    evaluator_cpus: float = option(1, "Logical CPUs of the evaluator.", unit="CPUs", ge=0)
    evaluator_gpus: float = option(0, "GPUs of the evaluator.", unit="GPUs", ge=0)
    trainer_cpus: float = option(1, "Logical CPUs of a train worker.", unit="CPUs", ge=0)
    trainer_gpus: float = option(0, "GPUs of a train worker.", unit="GPUs", ge=0, le=1)
    teacher_cpus: float = option(1, "Logical CPUs of a teacher replica.", unit="CPUs", ge=0)
    teacher_gpus: float = option(0, "GPUs of a teacher replica.", unit="GPUs", ge=0)
    threads: int = option(1, "OpenMP threads of each engine and worker on a CPU.", unit="threads", ge=1)
    block_rows: int | None = option(
        None,
        "Plan rows that a sampler takes at once; block_rows × workers must divide global_batch.",
        unit="rows",
        ge=1,
    )
    blocks_in_flight: int = option(4, "Blocks that one sampler works on at a time.", unit="blocks", ge=1)


class LimitsConfig(Section):
    """Each wait that can hang, and how long it may. Past it the run ends and says what it waited for."""

    start_s: float = option(600, "An actor, engine or replica that starts.", unit="seconds", gt=0)
    gate_s: float = option(1800, "A sampler that waits at the gate for the trainer.", unit="seconds", gt=0)
    reload_s: float = option(300, "A reload of weights in an engine.", unit="seconds", gt=0)
    generate_s: float = option(1800, "One block's sampling.", unit="seconds", gt=0)
    collective_s: float = option(1800, "A collective of the train workers.", unit="seconds", gt=0)
    evaluate_s: float = option(3600, "The evaluator, once training is done.", unit="seconds", gt=0)
    failures: int = option(3, "Restarts of the worker group after a fault before the run ends.", ge=0)

    @model_validator(mode="after")
    def _gate_waits_longest(self) -> "LimitsConfig":
        if self.gate_s < self.reload_s:
            raise ValueError(
                f"gate_s is {self.gate_s:g} but reload_s is {self.reload_s:g}: the gate waits for reloads elsewhere, "
                "so give it at least as long"
            )
        return self
