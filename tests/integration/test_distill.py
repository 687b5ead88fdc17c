"""SEED, DISTILL and EVALUATE as they are: vLLM samplers, ZeRO-3 workers, the evaluator; once, and once killed.

18 prompts with right teacher traces, 2 epochs in batches of 8 for 2 ranks: 6 steps, the third of each epoch filled up
with 6 rows of weight 0.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from orpo_ray.config.training import EvalConfig
from orpo_ray.pairs import PairGroup, PairSource, PhiRule, Plan, from_table
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.distill import Distill, initial_diversity
from orpo_ray.phases.evaluate import Evaluate
from orpo_ray.phases.metrics_tail import read_metrics
from orpo_ray.phases.seed import Seed, traces_key
from orpo_ray.sampling.journal import Journal
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.store import TraceStore
from orpo_ray.training.checkpoint import newest_checkpoint
from orpo_ray.training.ledger import read_ledger
from orpo_ray.training.metrics import live_diversity
from orpo_ray.weights.probe import probe_of
from orpo_ray.weights.published import check_published
from tests.tiny.cluster import ROOT, start_ray
from tests.tiny.models import make_model
from tests.tiny.runs import context_of, teach_by_hand, tiny_config

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(1500)]

PROMPTS, BATCH, BLOCK, STEPS, ROWS = 18, 8, 2, 6, 48
EOS = 2
# A random student's traces all differ, so φ rises after the first epoch.
ADAPTIVE = {"phi_schedule": "adaptive", "phi_target": 0.5, "phi_gain": 0.5}


@dataclass(frozen=True)
class Finished:
    """A run, and what each phase returned."""

    context: RunContext
    seed: dict[str, Any]
    distill: dict[str, Any]
    evaluate: dict[str, Any]

    @property
    def plan(self) -> Plan:
        return plan_of(self.context)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return list(read_metrics(self.context.layout.metrics))


def context_in(storage: Path, student: Path) -> RunContext:
    context = context_of(tiny_config(storage, student, train={"zero_stage": 3}, policy=ADAPTIVE))
    teach_by_hand(context, never_right=20 - PROMPTS)
    return context


def plan_of(context: RunContext) -> Plan:
    source = PairSource(context.layout.pairs)
    geometry = context.config.geometry(len(source))
    rule = PhiRule.of(context.config, geometry, initial_diversity(context))
    phi = rule.phis(live_diversity(context.layout.metrics, geometry.epochs - 1))
    assert phi[1] > phi[0], "what the first epoch measured is in it"
    return Plan(context.config.seed, phi, geometry, source.prompt_id)


def journal_of(context: RunContext) -> list[PairGroup]:
    journal = Journal(context.layout.journal, BATCH)
    tables = [journal.find(first, BLOCK) for first in range(0, ROWS, BLOCK)]
    return [group for table in tables if table is not None for group in from_table(table)]


def ledger_of(context: RunContext) -> list[dict[str, Any]]:
    return sorted(read_ledger(context.layout.ledger), key=lambda line: line["row"])


def check_ledger_is_the_plan(context: RunContext) -> None:
    """Each row of the plan once, in the step that the order gives it; both ranks have trained some."""
    lines, plan = ledger_of(context), plan_of(context)
    assert [line["row"] for line in lines] == list(range(ROWS))
    for line in lines:
        row = plan.row(line["row"])
        assert (line["prompt_id"], line["epoch"]) == (row.prompt_id, row.epoch)
        assert line["step"] == row.index // BATCH + 1
        assert (line["policy"] == "padding") is not row.real
        assert line["policy"] != "live" or row.policy == "live"
    assert {(line["step"], line["rank"]) for line in lines} == {
        (step + 1, rank) for step in range(STEPS) for rank in (0, 1)
    }


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def finished(ray_session: None, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    context = context_in(tmp_path_factory.mktemp("runs"), student)
    for phase in (Seed(), Distill(), Evaluate()):
        context.results[phase.name] = phase.run(context)
        assert phase.still_there(context, context.results[phase.name])
    return Finished(context, *(context.results[name] for name in ("SEED", "DISTILL", "EVALUATE")))


def test_the_pair_source_is_what_teacher_and_initial_student_wrote(finished: Finished, student: Path) -> None:
    """A teacher's text is encoded by the student's tokenizer and ended; the student's traces keep their own ids."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    store = TraceStore.find(Path(finished.seed["path"]), traces_key(finished.context))
    assert store is not None
    initial = dict(store.prompts())
    source = PairSource(finished.context.layout.pairs)
    assert len(source) == len(initial) == PROMPTS == finished.seed["prompts"]
    for prompt in (source[at] for at in range(PROMPTS)):
        a, b = map(int, prompt.prompt_id.split("+"))
        assert tokenizer.decode(prompt.prompt) == f"What is {a} plus {b}?\n\nAnswer:\n"
        assert [tokenizer.decode(trace) for trace in prompt.positives] == [
            f"{a} and {b} make {a + b}. The answer is {a + b}.</s>",
            f"Count on from {a}: the answer is {a + b}.</s>",
        ]
        assert prompt.negatives == [trace.token_ids for trace in initial[prompt.prompt_id] if trace.kept]
    assert finished.seed["negatives"] == sum(len(source[at].negatives) for at in range(PROMPTS))
    progress = [facts for kind, facts in finished.context.live["said"] if kind == "seed.progress"]
    assert [(facts["done"], facts["total"]) for facts in progress] == [(PROMPTS, PROMPTS)]


def test_the_ledger_is_the_plan_each_row_once(finished: Finished) -> None:
    check_ledger_is_the_plan(finished.context)
    assert {line["attempt"] for line in ledger_of(finished.context)} == {1}


def test_what_was_trained_is_what_the_journal_holds(finished: Finished) -> None:
    groups, source, plan = journal_of(finished.context), PairSource(finished.context.layout.pairs), finished.plan
    assert [group.index for group in groups] == list(range(ROWS))
    for group, line in zip(groups, ledger_of(finished.context), strict=True):
        prompt = source[plan.row(group.index).position]
        assert group.prompt == prompt.prompt
        assert all(trace in prompt.positives for trace in group.chosen)
        assert group.policy != "initial" or all(trace in prompt.negatives for trace in group.rejected)
        if group.real:
            assert (line["policy"], line["version"], line["pairs"]) == (group.policy, group.version, group.pairs)


def test_live_rows_are_sampled_by_the_student_that_they_train(finished: Finished) -> None:
    live = [line for line in ledger_of(finished.context) if line["policy"] == "live"]
    assert {(line["epoch"], line["version"]) for line in live} == {(1, 0), (2, 1)}
    assert finished.distill["staleness"] == {"0": len(live)}
    assert finished.distill["by_policy"]["live"] == len(live)


def test_the_trainer_scores_the_samplers_tokens_as_the_sampler_did(finished: Finished) -> None:
    """In the first step of an epoch sampler and trainer have the same weights. The gap shows any difference in the
    prompt's or the trace's token ids, in what was gathered, published or reloaded: nats a token."""
    gaps = {line["step"]: line["sampler_gap"] for line in finished.metrics if line["by_policy"]["live"]}
    assert gaps.keys() >= {1, 4}
    for step, gap in gaps.items():
        if step in (1, 4):
            assert gap < 1e-4
        else:
            assert gap > 1e-3, "the student has moved on since it sampled these"


def test_each_version_says_how_probable_a_right_trace_is_to_it(finished: Finished) -> None:
    """By transformers on the published weights; the engines that loaded them were checked by it."""
    first = PairSource(finished.context.layout.pairs)[0]
    for directory in sorted(finished.context.layout.weights.glob("v*")):
        probe = probe_of(check_published(directory))
        assert probe is not None
        assert (probe.prompt, probe.trace) == (first.prompt, first.positives[0][:11])
        logits_TV = AutoModelForCausalLM.from_pretrained(directory)(torch.tensor([probe.prompt + probe.trace])).logits[
            0
        ]
        logp_TV = torch.log_softmax(logits_TV[len(probe.prompt) - 1 : -1], dim=-1)
        logp_T = logp_TV.gather(1, torch.tensor(probe.trace)[:, None])
        assert probe.logp == pytest.approx(float(logp_T.mean()), abs=1e-4)


def test_the_ranks_share_a_batch_by_its_tokens(finished: Finished) -> None:
    for line in finished.metrics:
        assert sum(line["tokens_by_rank"]) == line["unique_tokens"]
        assert max(line["tokens_by_rank"]) / (sum(line["tokens_by_rank"]) / 2) <= 1.5
        assert 1.0 <= line["token_balance"] <= 2.0
        assert 1.0 <= line["time_balance"] <= 2.0
        assert (line["skipped"], line["cut"]) == (0, 0)
        assert line["rejected_gradient"] > 0


def test_the_summary_counts_what_was_trained(finished: Finished) -> None:
    result = finished.distill
    assert {name: result[name] for name in ("steps", "epochs", "rows", "versions", "attempts")} == {
        "steps": STEPS, "epochs": 2, "rows": 2 * PROMPTS, "versions": 2, "attempts": 1,
    }  # fmt: skip
    assert sum(result["by_policy"].values()) == 2 * PROMPTS
    assert result["pairs"] == sum(line["pairs"] for line in ledger_of(finished.context))
    assert result["loss_last"] < result["loss_first"]


def test_only_what_is_needed_stays_on_the_storage(finished: Finished) -> None:
    """The two newest checkpoints, and the versions that they resume with."""
    layout = finished.context.layout
    assert sorted(path.name for path in layout.checkpoints.iterdir()) == ["step-000004", "step-000006"]
    assert sorted(path.name for path in layout.weights.iterdir()) == ["v000001-a001", "v000002-a001"]


def test_the_evaluator_followed_every_epoch(finished: Finished) -> None:
    found = [(line["epoch"], line["step"], line["split"], line["total"]) for line in finished.evaluate["evaluations"]]
    assert found == [(epoch, epoch * 3, "test", 8) for epoch in (0, 1, 2)]


@pytest.mark.parametrize("epoch", [0, 2])
def test_the_answers_are_those_that_transformers_gives(finished: Finished, student: Path, epoch: int) -> None:
    weights = {0: student, 2: Path(finished.distill["weights"])}[epoch]
    evaluation = json.loads((finished.context.layout.evaluations / f"epoch-{epoch:03d}-test.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(weights).eval(), AutoTokenizer.from_pretrained(weights)
    task = split_of(finished.context.config.task, "test", finished.context.config.seed)
    answers = []
    for row in task.rows():
        prompt = tokenizer(f"{task.prompt(row)}\n\nAnswer:\n", add_special_tokens=False, return_tensors="pt").input_ids
        tokens = model.generate(prompt, do_sample=False, max_new_tokens=12)[0, prompt.shape[1] :]
        answers.append(tokens.tolist())
    texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in answers]
    assert [sample["text"] for sample in evaluation["samples"]] == texts[: len(evaluation["samples"])]
    assert evaluation["mean_tokens"] == sum(map(len, answers)) / len(answers)
    assert evaluation["truncated"] == sum(EOS not in tokens for tokens in answers)
    assert evaluation["correct"] == sum(task.verify(*item) for item in zip(task.rows(), texts, strict=True))


def test_a_finished_run_is_found_and_not_trained_again(finished: Finished) -> None:
    again = RunContext(finished.context.config, finished.context.layout, lambda kind, **facts: None)
    again.results.update(finished.context.results)
    assert Distill().run(again) == finished.distill
    assert Evaluate().run(again) == finished.evaluate
    check_ledger_is_the_plan(finished.context)


def test_other_evaluation_options_train_nothing_and_evaluate_what_is_left_anew(finished: Finished) -> None:
    config = finished.context.config.model_copy(update={"eval": EvalConfig(max_tokens=6, samples_kept=8)})
    said: list[str] = []
    again = RunContext(config, finished.context.layout, lambda kind, **facts: said.append(f"{kind} {facts}"))
    again.results.update(finished.context.results)
    assert Distill().key(again) == Distill().key(finished.context)
    assert Evaluate().key(again) != Evaluate().key(finished.context)
    evaluations = Evaluate().run(again)["evaluations"]
    assert [(line["epoch"], line["split"], line["total"]) for line in evaluations] == [(n, "test", 8) for n in range(3)]
    assert all(line["mean_tokens"] <= 6 for line in evaluations)
    assert max(line["mean_tokens"] for line in finished.evaluate["evaluations"]) > 6
    assert "epoch-000-test.json, epoch-001-test.json, epoch-002-test.json: made with other `eval` options" in said[0]


@pytest.fixture(scope="module")
def resumed(finished: Finished, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same run, SIGKILLed with all its processes once its first checkpoint is there, and started again."""
    storage = tmp_path_factory.mktemp("killed")
    context = context_in(storage, student)
    shutil.copytree(finished.context.layout.pairs, context.layout.pairs)
    context.results["SEED"] = finished.seed
    (storage / "seed.json").write_text(json.dumps(finished.seed))
    process = subprocess.Popen(
        [sys.executable, __file__, str(storage), str(student)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        wait_for(lambda: newest_checkpoint(context.layout.checkpoints) is not None, process)
    finally:
        kill_with_descendants(process)
    checkpoint = newest_checkpoint(context.layout.checkpoints)
    assert checkpoint is not None
    assert checkpoint.step < STEPS, "it ended before it could be killed"
    distill = context.results["DISTILL"] = Distill().run(context)
    assert ("note", {"text": f"going on from step {checkpoint.step} of {STEPS}"}) in context.live["said"]
    return Finished(context, finished.seed, distill, Evaluate().run(context))


def test_a_killed_run_goes_on_and_loses_and_repeats_nothing(resumed: Finished) -> None:
    check_ledger_is_the_plan(resumed.context)
    attempts = [line["attempt"] for line in ledger_of(resumed.context)]
    faults = [facts["error"] for kind, facts in resumed.context.live["said"] if kind == "fault"]
    assert set(attempts) == {1, 2}, "\n".join(faults)
    assert attempts == sorted(attempts)
    assert resumed.distill["attempts"] == 2
    assert [line["step"] for line in resumed.metrics] == list(range(1, STEPS + 1))


def test_a_killed_run_ends_as_the_undisturbed_one(resumed: Finished, finished: Finished) -> None:
    """The same traces, pairs and order, and with them the same losses and answers (DESIGN promise 11)."""
    assert [repr(group) for group in journal_of(resumed.context)] == [
        repr(group) for group in journal_of(finished.context)
    ]
    for name in ("loss", "sft", "odds_ratio", "grad_norm", "learning_rate"):
        expected = [line[name] for line in finished.metrics]
        assert [line[name] for line in resumed.metrics] == pytest.approx(expected, abs=1e-6)
    same = ("epoch", "step", "split", "correct", "parsed", "mean_tokens")
    assert [[line[name] for name in same] for line in resumed.evaluate["evaluations"]] == [
        [line[name] for name in same] for line in finished.evaluate["evaluations"]
    ]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def kill_with_descendants(process: subprocess.Popen[bytes]) -> None:
    """As when a machine dies: the driver, Ray's own processes, workers and engines, all at once."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)
    process.wait()


if __name__ == "__main__":  # the run that is killed
    start_ray()
    killed = context_in(Path(sys.argv[1]), Path(sys.argv[2]))
    killed.results["SEED"] = json.loads((Path(sys.argv[1]) / "seed.json").read_text())
    Distill().run(killed)
