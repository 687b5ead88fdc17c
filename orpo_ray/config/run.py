"""The whole configuration of one run, and the checks that span sections."""

import math
from typing import Any, Literal

from pydantic import ConfigDict, field_validator, model_validator

from orpo_ray.config.deepspeed_json import deepspeed_problems
from orpo_ray.config.geometry import Geometry, default_block_rows, geometry_problems, world_sizes
from orpo_ray.config.layout import is_run_name
from orpo_ray.config.method import NegativesConfig, PolicyConfig, PositivesConfig, SamplingConfig
from orpo_ray.config.models import EngineConfig, StudentConfig, TeacherConfig
from orpo_ray.config.place import LimitsConfig, ResourcesConfig, StorageConfig, TaskConfig, TrackingConfig
from orpo_ray.config.recipe import RecipeName, contradictions, with_recipe
from orpo_ray.config.section import Section, flatten, option, required
from orpo_ray.config.training import EvalConfig, ExportConfig, TrainConfig


class RunConfig(Section):
    """One distillation run: a YAML file of these sections."""

    model_config = ConfigDict(title="orpo_ray run")

    name: str = option("run", "The run's name: the same name and storage go on where the last start stopped.")
    seed: int = option(0, "Seed of plan, sampling and data split.", ge=0, lt=2**31)
    recipe: RecipeName | None = option(
        None,
        "One of the paper's recipes: a name for a set of the options below, which are filled in; what contradicts it is "
        "refused.",
    )
    task: TaskConfig = required("The task and its rows.")
    teacher: TeacherConfig = option(TeacherConfig(), "The black-box teacher.")
    more_teachers: list[TeacherConfig] = option(
        [], "Further teachers, each with the options of `teacher`: the K traces of a prompt are shared out by weight."
    )
    student: StudentConfig = required("The student that is trained.")
    sampling: SamplingConfig = option(SamplingConfig(), "How traces are drawn.")
    positives: PositivesConfig = option(PositivesConfig(), "Which right traces are learned from.")
    negatives: NegativesConfig = option(NegativesConfig(), "Where wrong traces come from, and which count.")
    policy: PolicyConfig = option(PolicyConfig(), "The mixed policy.")
    train: TrainConfig = option(TrainConfig.model_validate({}), "Optimisation.")
    eval: EvalConfig = option(EvalConfig(), "Held-out accuracy.")
    export: ExportConfig = option(ExportConfig(), "What becomes of the trained student.")
    storage: StorageConfig = option(StorageConfig(), "Where the run's files lie.")
    tracking: TrackingConfig = option(TrackingConfig(), "Metrics for people.")
    resources: ResourcesConfig = option(ResourcesConfig(), "What each group of actors asks of Ray.")
    limits: LimitsConfig = option(LimitsConfig(), "How long a wait may last.")

    @field_validator("name")
    @classmethod
    def _name_is_a_directory(cls, name: str) -> str:
        if not is_run_name(name):
            raise ValueError("a run's name is a directory's name: letters, digits, dot, dash and underscore")
        return name

    @model_validator(mode="before")
    @classmethod
    def _recipe_is_options(cls, data: Any) -> Any:
        return with_recipe(data)

    @property
    def teachers(self) -> list[TeacherConfig]:
        """All teachers, the first one first."""
        return [self.teacher, *self.more_teachers]

    def of_teachers(self) -> list["RunConfig"]:
        """This run as each of its teachers sees it: that teacher alone, and its part of K (largest remainders)."""
        if not self.more_teachers:
            return [self]
        weights = [teacher.weight for teacher in self.teachers]
        exact = [self.sampling.k * weight / sum(weights) for weight in weights]
        shares = [int(part) for part in exact]
        by_rest = sorted(range(len(exact)), key=lambda at: (shares[at] - exact[at], at))
        for at in by_rest[: self.sampling.k - sum(shares)]:
            shares[at] += 1
        return [
            self.model_copy(
                update={
                    "teacher": teacher,
                    "more_teachers": [],
                    "sampling": self.sampling.model_copy(update={"k": share}),
                }
            )
            for teacher, share in zip(self.teachers, shares, strict=True)
            if share
        ]

    @property
    def trains(self) -> bool:
        """Whether there is anything to train; else the initial student is evaluated, and that is all."""
        return self.train.objective != "none"

    @property
    def negatives_source(self) -> Literal["student", "teacher", "none"]:
        """Whose wrong traces are contrasted: nobody's where the objective contrasts nothing."""
        return "none" if self.train.objective in ("sft", "none") else self.negatives.source

    @property
    def live_policy(self) -> PolicyConfig:
        """The mixed policy as it is in truth: off-policy where the student is not asked for negatives."""
        return self.policy if self.negatives_source == "student" else PolicyConfig(phi=0.0)

    @property
    def workers_min(self) -> int:
        """Fewest train workers, after the default."""
        return self.train.workers_min or self.train.workers

    @property
    def world_sizes(self) -> list[int]:
        """The numbers of train workers that the group may have, largest first."""
        return world_sizes(self.train.global_batch, self.workers_min, self.train.workers, self.resources.block_rows)

    @property
    def block_rows(self) -> int:
        """Plan rows a block, after the default: the same for each size of the group, so that the journal's blocks are."""
        return self.resources.block_rows or default_block_rows(self.train.global_batch, math.lcm(*self.world_sizes))

    def sized(self, workers: int, samplers: int) -> "RunConfig":
        """This run with so many train workers and samplers, no more and no fewer."""
        train = {"workers": workers, "workers_min": workers}
        resources = {"samplers": samplers, "samplers_min": samplers, "block_rows": self.block_rows}
        return self.model_copy(
            update={
                "train": self.train.model_copy(update=train),
                "resources": self.resources.model_copy(update=resources),
            }
        )

    @property
    def smallest(self) -> "RunConfig":
        """This run with the fewest workers and samplers that it goes on with."""
        return self.sized(self.workers_min, self.resources.samplers_min)

    @property
    def eval_max_tokens(self) -> int:
        return self.eval.max_tokens or self.sampling.max_tokens

    def geometry(self, prompts: int) -> Geometry:
        """The stream's shape for `prompts` prompts that have a right teacher trace."""
        return Geometry(
            global_batch=self.train.global_batch,
            ranks=self.train.workers,
            block_rows=self.block_rows,
            prompts=prompts,
            epochs=self.train.epochs,
            refresh_steps=None if self.policy.refresh == "epoch" else int(self.policy.refresh),
        )


def cross_problems(config: RunConfig) -> list[str]:
    """Mistakes that only show when sections are read together, one sentence each: field, what is given, what fits."""
    problems = _size_problems(config)
    problems += deepspeed_problems(config.train, on_cpu=config.resources.trainer_gpus == 0)
    if isinstance(config.policy.refresh, int) and config.policy.refresh < 1:
        problems.append(f"policy.refresh: {config.policy.refresh} steps; take `epoch` or a whole number from 1 on")
    for at, teacher in enumerate(config.teachers):
        problems += _teacher_problems(teacher, f"more_teachers.{at - 1}" if at else "teacher")
    problems += contradictions(config.recipe, flatten(config.model_dump(mode="json", by_alias=True)))
    problems += _policy_problems(config)
    if config.task.name == "open_ended" and config.task.judge is None:
        problems.append("task.judge: not set, but no rule can verify the answers of task `open_ended`")
    problems += _gpu_problems(config)
    for field, engine in _engines(config):
        for name, tokens in (
            ("sampling.max_tokens", config.sampling.max_tokens),
            ("eval.max_tokens", config.eval.max_tokens),
        ):
            if tokens is not None and tokens >= engine.max_model_len:
                problems.append(
                    f"{name}: {tokens} leaves no room for a prompt in {field}.max_model_len "
                    f"{engine.max_model_len}; take fewer tokens or a longer context"
                )
        if engine.prefill_tokens < engine.max_model_len:
            problems.append(
                f"{field}.prefill_tokens: {engine.prefill_tokens} is less than {field}.max_model_len "
                f"{engine.max_model_len}, so a long prompt could not be prefilled whole; take at least that many"
            )
    if config.export.select == "best" and config.task.validation_size == 0 and config.task.validation_path is None:
        problems.append("export.select: `best` needs a validation split; set task.validation_size or validation_path")
    if config.export.lora == "adapter" and config.train.lora is None:
        problems.append("export.lora: `adapter` needs train.lora, as {}; without it there is no adapter")
    return problems


def _size_problems(config: RunConfig) -> list[str]:
    """Sizes of the group with which the stream would hang, and ranges that hold none."""
    train, resources = config.train, config.resources
    problems = geometry_problems(train.global_batch, train.workers, resources.block_rows)
    if config.workers_min > train.workers:
        problems.append(
            f"train.workers_min: {config.workers_min} is more than train.workers {train.workers}; take at most as many"
        )
    elif config.workers_min < train.workers:
        # The sizes between are left out where they do not fit; the two that were asked for must.
        problems += geometry_problems(train.global_batch, config.workers_min, resources.block_rows, "train.workers_min")
    if resources.samplers_min > resources.samplers:
        problems.append(
            f"resources.samplers_min: {resources.samplers_min} is more than resources.samplers {resources.samplers}; "
            "take at most as many"
        )
    return problems


def _policy_problems(config: RunConfig) -> list[str]:
    policy, source = config.policy, config.negatives.source
    problems = []
    rising = policy.phi_schedule in ("linear", "cosine")
    if rising and policy.phi_end is None:
        problems.append(f"policy.phi_end: not set, but policy.phi_schedule `{policy.phi_schedule}` ends there")
    if not rising and policy.phi_end is not None:
        problems.append(
            f"policy.phi_end: {policy.phi_end:g} means nothing with policy.phi_schedule `{policy.phi_schedule}`; take "
            "linear or cosine, or leave it out"
        )
    if policy.phi_schedule == "adaptive" and not policy.phi_min <= policy.phi <= policy.phi_max:
        problems.append(
            f"policy.phi: {policy.phi:g} is not between policy.phi_min {policy.phi_min:g} and policy.phi_max "
            f"{policy.phi_max:g}, where `adaptive` keeps it"
        )
    live = max(policy.phi, policy.phi_end or 0.0) if rising else policy.phi
    if source != "student" and live > 0 and config.train.objective not in ("sft", "none"):
        problems.append(
            f"policy.phi: {live:g} asks for live negatives, which negatives.source `{source}` does not give; set it to 0"
        )
    if config.train.objective == "orpo" and source == "none":
        problems.append(
            "negatives.source: `none` leaves the objective `orpo` nothing to contrast; take student or teacher, or "
            "train.objective sft"
        )
    return problems


def _engines(config: RunConfig) -> list[tuple[str, EngineConfig]]:
    engines = [("student.engine", config.student.engine)]
    for at, teacher in enumerate(config.teachers):
        if teacher.backend == "serve":
            engines.append((f"more_teachers.{at - 1}.engine" if at else "teacher.engine", teacher.engine))
    return engines


def _gpu_problems(config: RunConfig) -> list[str]:
    """Shares of a GPU that would be overdrawn, and engines that are spread over more GPUs than they have."""
    resources, problems = config.resources, []
    users = [("sampler_gpus", "student", config.student.engine), ("evaluator_gpus", "student", config.student.engine)]
    if config.teacher.backend == "serve":
        users.append(("teacher_gpus", "teacher", config.teacher.engine))
    for field, model, engine in users:
        gpus: float = getattr(resources, field)
        if gpus > 1 and not gpus.is_integer():
            problems.append(f"resources.{field}: {gpus:g} GPUs; take a share below 1, or whole GPUs")
        elif gpus and engine.tensor_parallel > 1 and engine.tensor_parallel != gpus:
            problems.append(
                f"resources.{field}: {gpus:g}, but {model}.engine.tensor_parallel spreads the engine over "
                f"{engine.tensor_parallel} GPUs; take {engine.tensor_parallel}"
            )
        elif 0 < gpus < min(1.0, engine.gpu_memory):
            problems.append(
                f"{model}.engine.gpu_memory: {engine.gpu_memory:g} of a GPU's memory, but resources.{field} gives the "
                f"engine {gpus:g} of a GPU, and others the rest; take at most {gpus:g}"
            )
    if 0 < resources.trainer_gpus <= 0.5 and config.train.workers > 1:
        problems.append(
            f"resources.trainer_gpus: {resources.trainer_gpus:g} puts two of train.workers {config.train.workers} on one "
            "GPU, which NCCL refuses; take more than 0.5, or 1 worker"
        )
    if config.storage.transport == "nccl" and 0 < resources.trainer_gpus < 1:
        problems.append(
            f"storage.transport: nccl does not send within one GPU, which resources.trainer_gpus {resources.trainer_gpus:g} "
            "shares with engines; take `shm`"
        )
    return problems


def _teacher_problems(teacher: TeacherConfig, at: str) -> list[str]:
    needed = {"serve": ("model",), "openai": ("model", "base_url"), "recorded": ("path",)}[teacher.backend]
    problems = [
        f"{at}.{field}: not set, but {at}.backend `{teacher.backend}` needs it"
        for field in needed
        if getattr(teacher, field) is None
    ]
    if teacher.serve.max_replicas < teacher.serve.min_replicas:
        problems.append(
            f"{at}.serve.max_replicas: {teacher.serve.max_replicas} is less than {at}.serve.min_replicas "
            f"{teacher.serve.min_replicas}; take at least as many"
        )
    return problems
