"""Every quantity that a run gives to Ray's metrics, and so to Prometheus: the one table of names, kinds, units and words.

Prometheus sees a quantity as `ray_<name>`. Each carries the tags `run` and `phase`; further tags have few values, whatever
the size of the run: a prompt or a step is never a tag.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]
Unit = Literal["", "nats", "share", "seconds", "tokens", "traces", "pairs", "prompts", "steps", "versions", "responses"]

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Upper bounds of the buckets of every histogram."""


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes:
        name: a counter's ends in `_total`, as Prometheus wants it.
        phase: value of the tag `phase` where the emitter gives none.
        tags: besides `run` and `phase`.
        line: the field of a metrics.jsonl line that it is taken from, in rank 0, once a step. A field that is a mapping
            gives one value for each of its keys, which is the tag's value.
    """

    name: str
    kind: Kind
    unit: Unit
    description: str
    phase: str
    tags: tuple[str, ...] = ()
    line: str | None = None

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return f"ray_{self.name}"


def _train(name: str, kind: Kind, unit: Unit, description: str, line: str | None = None, *tags: str) -> Quantity:
    return Quantity(f"orpo_train_{name}", kind, unit, description, "distill", tags, line)


_TABLE = (
    # The run, from the driver.
    Quantity("orpo_phase_running", "gauge", "", "1 while the phase works, 0 once it is over.", ""),
    Quantity("orpo_phase_progress", "gauge", "share", "Prompts or steps of the phase that are done.", ""),
    Quantity("orpo_phase_seconds", "gauge", "seconds", "Time that the phase took, over all starts.", ""),
    Quantity("orpo_run_failures_total", "counter", "", "Starts that ended in an error, by its class.", "", ("cause",)),
    # The teacher.
    Quantity(
        "orpo_teacher_responses_total", "counter", "responses",
        "Answers of the teacher by class of status, those that are asked again among them.", "teach", ("status",),
    ),
    Quantity("orpo_teacher_request_seconds", "histogram", "seconds", "A request, with all its tries.", "teach"),
    Quantity("orpo_teacher_tokens_total", "counter", "tokens", "Tokens that the teacher wrote.", "teach"),
    Quantity("orpo_teacher_accuracy", "gauge", "share", "Right traces of the teacher.", "teach"),
    # Engines of the student.
    Quantity("orpo_engine_starts_total", "counter", "", "Engines started.", "distill", ("group",)),
    Quantity("orpo_engines_configured", "gauge", "", "Engines that the configuration asks for.", "", ("group",)),
    # Samplers.
    Quantity("orpo_sampler_traces_total", "counter", "traces", "Student traces by verdict.", "distill", ("verdict",)),
    Quantity("orpo_sampler_tokens_total", "counter", "tokens", "Tokens that the student sampled.", "distill"),
    Quantity("orpo_sampler_gate_seconds", "histogram", "seconds", "A block's wait at the gate.", "distill"),
    Quantity("orpo_sampler_block_seconds", "histogram", "seconds", "A block's sampling, gate and all.", "distill"),
    Quantity("orpo_sampler_load_seconds", "histogram", "seconds", "Loading a published version.", "distill"),
    Quantity("orpo_sampler_version", "gauge", "versions", "Version that a sampler has loaded.", "distill"),
    # Training, from each rank.
    _train("step_seconds", "histogram", "seconds", "An optimizer step, the wait for its rows among it.", None, "rank"),
    _train("wait_seconds", "histogram", "seconds", "A rank's wait for the rows of a step.", None, "rank"),
    # Training, from rank 0.
    _train("step", "gauge", "steps", "The last optimizer step.", "step"),
    _train("epoch", "gauge", "", "Its epoch.", "epoch"),
    _train("attempt", "gauge", "", "The start of the worker group that it belongs to.", "attempt"),
    _train("version", "gauge", "versions", "The newest published version before it.", "version"),
    _train("loss", "gauge", "nats", "The whole loss.", "loss"),
    _train("sft_loss", "gauge", "nats", "Its SFT term.", "sft"),
    _train("odds_ratio", "gauge", "nats", "Its odds-ratio term, before λ.", "odds_ratio"),
    _train("margin", "gauge", "nats", "Log-odds of chosen over rejected.", "margin"),
    _train("preference_accuracy", "gauge", "share", "Pairs whose chosen trace is the likelier.", "accuracy"),
    _train("chosen_logp", "gauge", "nats", "Mean log-probability of a token of chosen traces.", "chosen_logp"),
    _train("rejected_logp", "gauge", "nats", "Mean log-probability of a token of rejected traces.", "rejected_logp"),
    _train("sampler_gap", "gauge", "nats", "Trainer and sampler apart in a rejected trace's log-probability.", "sampler_gap"),
    _train("grad_norm", "gauge", "", "Gradient norm before clipping.", "grad_norm"),
    _train("learning_rate", "gauge", "", "Learning rate.", "learning_rate"),
    _train("lambda", "gauge", "", "Weight of the odds-ratio term.", "lambda"),
    _train("phi", "gauge", "share", "Probability of live negatives.", "phi"),
    _train("pairs_per_second", "gauge", "pairs", "Pairs a second over the step.", "pairs_per_s"),
    _train("token_balance", "gauge", "", "Fullest rank over the mean rank, in tokens; 1 is even.", "token_balance"),
    _train("time_balance", "gauge", "", "Slowest rank over the mean rank, in time; 1 is even.", "time_balance"),
    _train("staleness_mean", "gauge", "versions", "Mean staleness of live negatives.", "staleness_mean"),
    _train("staleness_bound", "gauge", "versions", "policy.max_staleness."),
    _train("steps_total", "counter", "steps", "Optimizer steps."),
    _train("skipped_total", "counter", "steps", "Steps whose gradient was not finite, passed over.", "skipped"),
    _train("pairs_total", "counter", "pairs", "Pairs trained on.", "pairs"),
    _train("tokens_total", "counter", "tokens", "Tokens through the trainer's model, padding among them.", "computed_tokens"),
    _train("cut_total", "counter", "traces", "Traces and prompts cut to student.max_length.", "cut"),
    _train("rows_total", "counter", "prompts", "Prompts by the origin of their negatives.", "by_policy", "origin"),
    _train("stale_rows_total", "counter", "prompts", "Prompts with live negatives by staleness.", "staleness", "staleness"),
    # Evaluation, beside training.
    Quantity("orpo_eval_accuracy", "gauge", "share", "Held-out accuracy of the student.", "evaluate", ("split",)),
    Quantity("orpo_eval_epoch", "gauge", "", "Epoch of the student that it is of.", "evaluate", ("split",)),
    Quantity("orpo_eval_tokens_total", "counter", "tokens", "Tokens of held-out answers.", "evaluate", ("split",)),
)  # fmt: skip

QUANTITIES = {quantity.name: quantity for quantity in _TABLE}
