"""The student as DeepSpeed trains it: token ids in, the loss and its statistics out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from orpo_ray.errors import InputError
from orpo_ray.training import attention
from orpo_ray.training.batching import TokenGroup
from orpo_ray.training.logprobs import TokenLogProbs
from orpo_ray.training.objective import Objective, Orpo, PairScores
from orpo_ray.training.packing import TraceBatch, packed, padded
from orpo_ray.training.stats import batch_sums

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

PACKED_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gpt2"})
"""`model_type`s whose packed path is proven equal to the padded one by a test."""

_ALTERS_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")

SftScope = Literal["completion", "prompt_and_completion"]


def load_student(path: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a causal language model for training, all parameters trainable, all dropout off.

    Dropout is off since ORPO compares log-probabilities of the same weights (TRL does the same by default).

    Args:
        path: a model directory in Hugging Face form, or a hub name.
        dtype: precision of the parameters. DeepSpeed makes its own bf16 copy, so float32 is right there too.

    Raises:
        InputError: no model can be read from `path`.
    """
    from transformers import AutoModelForCausalLM

    try:
        student: PreTrainedModel = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"student.model: no model can be loaded from {path}: {error}") from error
    disable_dropout(student)
    student.config.use_cache = False
    return student


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout rate to 0: in modules, and in attributes that modelling code hands to functions."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or "layerdrop" in name):
                setattr(module, name, 0.0)


class OrpoModel(nn.Module):
    """What `deepspeed.initialize` wraps. Its forward pass takes a micro-batch to its share of the global batch's loss.

    Attributes:
        packs: whether prompts are shared (packed layout) or copied for every trace (padded layout).
    """

    def __init__(
        self,
        student: nn.Module,
        objective: Objective | None = None,
        sft_scope: SftScope = "completion",
        packing: bool = True,
    ) -> None:
        """
        Args:
            student: a causal language model of transformers, or a peft model around one.
            objective: from pair scores to the loss; default ORPO with lambda 1.
            sft_scope: what the SFT term is a mean over.
            packing: False forces the padded layout.
        """
        super().__init__()
        self.student = student
        self.objective = objective or Orpo(lam=1.0)
        self.sft_scope: SftScope = sft_scope
        causal = causal_lm(student)
        self.packs = packing and _can_pack(causal)
        if self.packs:
            attention.register()
            causal.set_attn_implementation(attention.NAME)
        head = causal.get_output_embeddings()  # type: ignore[no-untyped-call]
        altered = [
            key for key in _ALTERS_LOGITS if getattr(causal.config.get_text_config(), key, None) not in (None, 1)
        ]
        self.scorer: TokenLogProbs | None = None
        if type(head) is nn.Linear and not altered:
            self.scorer = TokenLogProbs(head)
        else:
            why = f"{altered[0]} changes its logits" if altered else f"its output layer is a {type(head).__name__}"
            log.warning("%s: %s, so all logits are kept in memory", causal.config.model_type, why)

    def batch(self, groups: Sequence[TokenGroup], real_rows: float) -> TraceBatch:
        """Lay out a micro-batch as this model takes it; on the CPU.

        Args:
            groups: at most what one micro-step should hold; may be empty.
            real_rows: rows of weight 1 in the *global* batch, over all ranks.
        """
        if not self.objective.uses_rejected:
            groups = [group.without_rejected() for group in groups]
        layout = packed if self.packs else padded
        return layout(groups, real_rows, score_prompts=self.sft_scope == "prompt_and_completion")

    def forward(self, batch: TraceBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Loss and statistics of one micro-batch, on the device of `batch`.

        Returns:
            loss: [] float64. The sum over all micro-batches of all ranks is the global batch's loss; whoever averages
                gradients over ranks multiplies by their number first.
            sums: [len(stats.NAMES)] float64, detached, to be added over micro-batches and ranks (`stats.summary`).
            pair_losses: [K] float64, detached: `batch.names` tells where a loss that is not finite came from.
        """
        scores = self.scores(batch)
        result = self.objective(scores)
        return result.loss, batch_sums(batch, scores, result), (result.sft + result.odds_ratio).detach()

    def scores(self, batch: TraceBatch) -> PairScores:
        """Mean token log-probabilities of each pair's traces."""
        logp_N = self.token_logps(batch).double()
        sum_S = logp_N.new_zeros(len(batch.length_S)).index_add(0, batch.segment_N, logp_N)
        mean_S = sum_S / batch.length_S.clamp(min=1)
        chosen_nll = -mean_S[batch.chosen_K]
        if batch.prompt_K is not None:
            length_K = batch.length_S[batch.chosen_K] + batch.length_S[batch.prompt_K]
            chosen_nll = -(sum_S[batch.chosen_K] + sum_S[batch.prompt_K]) / length_K
        return PairScores(
            chosen_logp=mean_S[batch.chosen_K],
            rejected_logp=mean_S[batch.rejected_K],
            chosen_nll=chosen_nll,
            has_rejected=batch.has_rejected_K,
            weight=batch.weight_K,
        )

    def token_logps(self, batch: TraceBatch) -> Tensor:
        """Log-probability of each scored token, [N], nats."""
        causal = causal_lm(self.student)
        inputs = {"input_ids": batch.input_RL, "use_cache": False}
        if batch.tree is not None:
            inputs |= {"position_ids": batch.position_RL, "tree": batch.tree}
        if self.scorer is None:
            logits_RLV = causal(**inputs).logits
            logits_NV = logits_RLV.flatten(0, 1)[batch.predictor_N]
            return torch.log_softmax(logits_NV.float(), dim=-1).gather(1, batch.target_N[:, None]).squeeze(1)
        hidden_RLD = causal.base_model(**inputs).last_hidden_state
        logp_N: Tensor = self.scorer(hidden_RLD.flatten(0, 1)[batch.predictor_N], batch.target_N)
        return logp_N


def causal_lm(student: nn.Module) -> PreTrainedModel:
    """The transformers model itself, inside a peft wrapper or not."""
    unwrap = getattr(student, "get_base_model", None)
    return cast("PreTrainedModel", student if unwrap is None else unwrap())


def _can_pack(causal: PreTrainedModel) -> bool:
    kind = causal.config.model_type
    if kind in PACKED_ARCHITECTURES:
        log.info("%s: prompts are shared between their traces (packed)", kind)
        return True
    log.info("%s: packing is not proven for this architecture, each trace repeats its prompt (padded)", kind)
    return False
