"""The run that is killed: a program of its own, `python -m tests.chaos.run STORAGE STUDENT STEPS`.

Start it again and it goes on, as the command of a real run does.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from orpo_ray.config import Geometry
from orpo_ray.pairs import PairSource, PhiRule, Plan
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.needs import logical_cpus
from tests.tiny.fake_engine import write_sums
from tests.tiny.runs import context_of, tiny_config

PROMPTS, BATCH = 36, 8  # five steps an epoch, the last one filled up with four rows of weight 0
STEPS_AN_EPOCH = -(-PROMPTS // BATCH)


def chaos_context(storage: Path, student: Path, epochs: int) -> RunContext:
    """The paper's strict order, an engine call of 0.1 s, and faults without a bound that the harness could reach."""
    config = tiny_config(
        storage,
        student,
        task={"name": "tests.tiny.sums:SumsTask", "train_size": PROMPTS, "test_size": 8},
        policy={"phi": 0.5},
        train={"epochs": epochs, "zero_stage": 1, "checkpoint_every": 2, "global_batch": BATCH},
        resources={"block_rows": 2, "samplers": 2},
        limits={"failures": 1000},
    )
    context = context_of(config)
    if not context.layout.pairs.exists():
        write_sums(context.layout.pairs, PROMPTS)
    context.results["SEED"] = {}
    return context


def plan_of(context: RunContext) -> Plan:
    source = PairSource(context.layout.pairs)
    geometry: Geometry = context.config.geometry(len(source))
    return Plan(context.config.seed, PhiRule.of(context.config, geometry).phis(), geometry, source.prompt_id)


def with_fake_engines(calls: Path) -> None:
    """Put fake engines behind this process's samplers and evaluator."""
    from orpo_ray.phases import distill, evaluator_actor
    from orpo_ray.sampling.stream import pair_stream
    from tests.tiny.fake_engine import (
        Deaths,
        FakeEngineSpec,
        MortalEvaluator,
        MortalEvaluatorSpec,
        ProcessEngineSampler,
    )

    fakes: dict[Any, dict[str, Any]] = {
        distill: {
            "SamplerSpec": partial(FakeEngineSpec, calls=calls, seconds=0.1),
            "pair_stream": partial(pair_stream, sampler=ProcessEngineSampler),
        },
        evaluator_actor: {
            "Evaluator": MortalEvaluator,
            "EvaluatorSpec": partial(MortalEvaluatorSpec, deaths=Deaths(calls.with_name("evaluated.jsonl"), lives=0)),
        },
    }
    for module, replaced in fakes.items():
        for name, fake in replaced.items():
            setattr(module, name, fake)


def main(storage: Path, student: Path, epochs: int) -> None:
    from orpo_ray.phases.distill import Distill
    from orpo_ray.phases.evaluate import Evaluate
    from tests.tiny.cluster import start_ray

    context = chaos_context(storage, student, epochs)
    # As many as a cluster of the run's own has: what a killed process leaves taken is missing.
    start_ray(logical_cpus(context.config, 1))
    notes = storage / "notes.txt"

    def say(kind: str, **facts: Any) -> None:
        with notes.open("a") as file:
            file.write(json.dumps({"kind": kind, **facts}, default=str) + "\n")

    context = RunContext(context.config, context.layout, say)
    context.results["SEED"] = {}
    with_fake_engines(storage / "calls.jsonl")
    context.results["DISTILL"] = Distill().run(context)
    evaluated = Evaluate().run(context)["evaluations"]
    (storage / "result.json").write_text(
        json.dumps({"distill": context.results["DISTILL"], "evaluated": [line["epoch"] for line in evaluated]})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
