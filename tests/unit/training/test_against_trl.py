"""The same texts through TRL's stock ORPOTrainer: its tokens, masks and log-probabilities give our loss and gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from orpo_ray.training.batching import TokenGroup
from orpo_ray.training.model import OrpoModel
from orpo_ray.training.objective import Orpo

EOS, VOCAB = 1, 67
PROMPTS = [(5, 6, 7, 8), (9, 10)]
CHOSEN = [(11, 12, 13), (14, 15, 16, 17, 18)]
REJECTED = [(21, 22, 23, 24, 25), (26,)]


def words(tokens: tuple[int, ...]) -> str:
    return "".join(f" w{token}" for token in tokens)


def tokenizer() -> PreTrainedTokenizerFast:
    """One word a token; the padding token is the end token, as in many a base model."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {f"w{token}": token for token in range(2, VOCAB)} | {"<unk>": 0, "<eos>": EOS}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")


@pytest.fixture
def trl_trainer(make_student: Callable[..., PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    orpo = pytest.importorskip("trl.experimental.orpo")
    from datasets import Dataset

    columns = zip(map(words, PROMPTS), map(words, CHOSEN), map(words, REJECTED), strict=True)
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in columns]
    config = orpo.ORPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=1, max_length=64, beta=0.7, use_cpu=True, bf16=False,
        report_to="none", remove_unused_columns=False, gradient_checkpointing=False,
    )  # fmt: skip
    dataset = Dataset.from_list(rows)
    return orpo.ORPOTrainer(
        model=make_student("llama"), args=config, train_dataset=dataset, processing_class=tokenizer()
    )


@pytest.mark.parametrize("packing", [True, False])
def test_equals_trl(make_student: Callable[..., PreTrainedModel], trl_trainer: Any, packing: bool) -> None:
    for row in range(len(PROMPTS)):
        example = trl_trainer.data_collator([trl_trainer.train_dataset[row]])
        assert example["chosen_input_ids"].tolist() == [[*PROMPTS[row], *CHOSEN[row], EOS]]
        trl_trainer.model.zero_grad()
        expected, metrics = trl_trainer.get_batch_loss_metrics(trl_trainer.model, example)
        expected.backward()

        # TRL's SFT term is over prompt and completion
        model = OrpoModel(make_student("llama"), Orpo(lam=0.7), sft_scope="prompt_and_completion", packing=packing)
        group = TokenGroup(PROMPTS[row], ((*CHOSEN[row], EOS),), ((*REJECTED[row], EOS),), ((0, 0),))
        batch = model.batch([group], real_rows=1)
        scores = model.scores(batch)
        loss, *_ = model(batch)
        loss.backward()
        assert scores.chosen_logp.item() == pytest.approx(metrics["logps/chosen"], rel=1e-5)
        assert scores.rejected_logp.item() == pytest.approx(metrics["logps/rejected"], rel=1e-5)
        assert scores.chosen_nll.item() == pytest.approx(metrics["nll_loss"], rel=1e-5)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        theirs = dict(trl_trainer.model.named_parameters())
        for name, parameter in model.student.named_parameters():
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-5)
