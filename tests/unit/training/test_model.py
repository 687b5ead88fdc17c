"""One loss, whatever the layout: packed against padded, both against whole sequences through transformers alone."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from orpo_ray.config.training import LoraConfig
from orpo_ray.errors import InputError
from orpo_ray.training import stats
from orpo_ray.training.batching import NO_REJECTED, TokenGroup
from orpo_ray.training.lora import adapt
from orpo_ray.training.loss import orpo_loss
from orpo_ray.training.model import PACKED_ARCHITECTURES, OrpoModel, load_student
from orpo_ray.training.objective import Sft

Make = Callable[..., PreTrainedModel]


def reference(
    model: PreTrainedModel, groups: list[TokenGroup], lam: float = 1.0, score_prompts: bool = False
) -> Tensor:
    """The loss by the plainest way: each sequence alone, all logits, one pair after the other."""

    def token_logps(prompt: tuple[int, ...], trace: tuple[int, ...]) -> Tensor:
        ids = torch.tensor([prompt + trace])
        logps = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, :-1].double(), dim=-1)
        return logps.gather(1, ids[0, 1:, None]).squeeze(1)

    real = [group for group in groups if group.weight > 0]
    total = torch.zeros((), dtype=torch.float64)
    for group in real:
        for c, r in group.pairs:
            every = token_logps(group.prompt, group.chosen[c])
            chosen = every[len(group.prompt) - 1 :].mean()
            nll = -every.mean() if score_prompts else -chosen
            has = r != NO_REJECTED
            rejected = token_logps(group.prompt, group.rejected[r])[len(group.prompt) - 1 :].mean() if has else chosen
            pair = orpo_loss(chosen[None], rejected[None], nll[None], lam, torch.tensor([has]))
            total = total + pair.loss / len(group.pairs) / len(real)
    return total


def gradients(module: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert one
    for name, gradient in one.items():
        # relative to the tensor's own scale; the floor is for gradients that are 0 in exact arithmetic (key biases)
        scale = other[name].abs().max().item()
        torch.testing.assert_close(
            gradient, other[name], rtol=1e-5, atol=1e-5 * max(scale, 0.05), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("score_prompts", [False, True])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gpt_neox", "gpt2", "opt", "gemma2", "bloom"])
def test_loss_and_gradients_equal_whole_sequences(
    make_student: Make, groups: list[TokenGroup], kind: str, packing: bool, score_prompts: bool
) -> None:
    plain = make_student(kind)
    expected = reference(plain, groups, score_prompts=score_prompts)
    want = gradients(plain, expected)
    scope = "prompt_and_completion" if score_prompts else "completion"
    model = OrpoModel(make_student(kind), sft_scope=scope, packing=packing)
    assert model.packs == (packing and kind in PACKED_ARCHITECTURES)
    loss, _, _ = model(model.batch(groups, real_rows=3))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same(gradients(model.student, loss), want)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gpt_neox", "gpt2", "opt", "gemma2", "bloom"])
def test_loss_and_gradients_equal_whole_sequences_with_lora(
    make_student: Make, groups: list[TokenGroup], kind: str, packing: bool
) -> None:
    def adapted() -> PreTrainedModel:
        student: PreTrainedModel = adapt(make_student(kind), LoraConfig(rank=4, alpha=4))
        torch.manual_seed(3)
        for name, parameter in student.named_parameters():
            if "lora_B" in name:  # 0 at first, which would hide half of the gradients
                parameter.data.normal_(std=0.3)
        return student

    plain = adapted()
    expected = reference(plain, groups)
    want = gradients(plain, expected)
    model = OrpoModel(adapted(), packing=packing)
    assert model.packs == (packing and kind in PACKED_ARCHITECTURES)
    loss, _, _ = model(model.batch(groups, real_rows=3))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all("lora" in name for name in want)
    assert_same(gradients(model.student, loss), want)


@pytest.mark.parametrize("packing", [True, False])
def test_a_sliding_window_is_kept(make_student: Make, groups: list[TokenGroup], packing: bool) -> None:
    plain = make_student("mistral", sliding_window=4)
    expected = reference(plain, groups)
    assert expected.item() != pytest.approx(reference(make_student("mistral"), groups).item(), rel=1e-3)
    model = OrpoModel(make_student("mistral", sliding_window=4), packing=packing)
    loss, _, _ = model(model.batch(groups, real_rows=3))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same(gradients(model.student, loss), gradients(plain, expected))


@pytest.mark.parametrize("packing", [True, False])
def test_gradient_checkpointing_changes_nothing(make_student: Make, groups: list[TokenGroup], packing: bool) -> None:
    found = []
    for checkpointing in (False, True):
        model = OrpoModel(make_student("llama"), packing=packing).train()
        if checkpointing:
            model.student.gradient_checkpointing_enable()
        loss, _, _ = model(model.batch(groups, real_rows=3))
        found.append(gradients(model, loss))
    assert_same(*found)


def test_cuts_into_micro_batches_add_up(make_student: Make, groups: list[TokenGroup]) -> None:
    model = OrpoModel(make_student("gpt_neox"))
    loss, sums, _ = model(model.batch(groups, real_rows=3))
    want = gradients(model, loss)
    model.zero_grad()
    parts = [groups[:1], [], groups[1:2], groups[2:]]
    total, total_sums = 0.0, torch.zeros_like(sums)
    for part in parts:
        loss_part, sums_part, _ = model(model.batch(part, real_rows=3))
        loss_part.backward()
        total, total_sums = total + loss_part.item(), total_sums + sums_part
    assert total == pytest.approx(loss.item(), rel=1e-6)
    assert_same({n: p.grad for n, p in model.named_parameters()}, want)
    torch.testing.assert_close(total_sums[:10], sums[:10], rtol=1e-5, atol=1e-7)


def test_statistics_are_means_over_the_global_batch(make_student: Make, groups: list[TokenGroup]) -> None:
    model = OrpoModel(make_student("llama"))
    loss, sums, pair_losses = model(model.batch(groups, real_rows=3))
    scores = model.scores(model.batch(groups, real_rows=3))
    result = stats.summary(sums)
    assert result["loss"] == pytest.approx(loss.item())
    # 4 pairs of the first group weigh 1/12 each, the one of the second 1/3; the SFT row has no margin
    better = (scores.chosen_logp > scores.rejected_logp)[:5].double()
    weight = torch.tensor([1 / 12] * 4 + [1 / 3], dtype=torch.float64)
    assert result["accuracy"] == pytest.approx((better * weight).sum().item() / weight.sum().item())
    assert result["rejected_share"] == pytest.approx(2 / 3)
    assert result["loss"] == pytest.approx(result["sft"] + result["rejected_share"] * result["odds_ratio"])
    assert result["pairs"] == len(pair_losses) == 7
    assert "sampler_gap" not in result


def test_the_samplers_log_probability_is_compared(make_student: Make, groups: list[TokenGroup]) -> None:
    model = OrpoModel(make_student("llama"))
    exact = model.scores(model.batch(groups, real_rows=3)).rejected_logp
    noted = TokenGroup(
        groups[1].prompt, groups[1].chosen, groups[1].rejected, ((0, 0),), rejected_logp=(exact[4].item() + 0.25,)
    )
    _, sums, _ = model(model.batch([groups[0], noted], real_rows=2))
    assert stats.summary(sums)["sampler_gap"] == pytest.approx(0.25, rel=1e-5)


def test_sft_computes_no_rejected_trace(make_student: Make, groups: list[TokenGroup]) -> None:
    model = OrpoModel(make_student("llama"), objective=Sft())
    batch = model.batch(groups, real_rows=3)
    assert batch.computed_tokens == 9 + 4 + 7 + 1 + 2 + 6 + 3 + 1
    loss, _, _ = model(batch)
    assert loss.item() == pytest.approx(reference(make_student("llama"), groups, lam=0.0).item(), rel=1e-5)


def test_nothing_to_do_is_a_loss_of_zero_with_gradients_of_zero(make_student: Make) -> None:
    model = OrpoModel(make_student("llama"))
    loss, sums, _ = model(model.batch([], real_rows=3))
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert stats.summary(sums)["pairs"] == 0


def test_the_padded_path_says_why(make_student: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="orpo_ray"):
        OrpoModel(make_student("gemma2"))
    assert "not proven for this architecture" in caplog.text
    assert "final_logit_softcapping changes its logits" in caplog.text


def test_loading_switches_dropout_off(make_student: Make, tmp_path: object) -> None:
    make_student("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5).save_pretrained(str(tmp_path))
    student = load_student(str(tmp_path)).train()
    ids = torch.arange(8)[None]
    torch.testing.assert_close(student(ids).logits, student(ids).logits, rtol=0, atol=0)
    OrpoModel(student).train()(OrpoModel(student).batch([TokenGroup((1, 2), ((3,),), (), ((0, -1),))], 1))


def test_no_model_is_one_clear_message(tmp_path: object) -> None:
    with pytest.raises(InputError, match=r"student\.model: no model can be loaded from"):
        load_student(str(tmp_path))


def test_a_saved_model_keeps_no_trace_of_the_attention(make_student: Make, tmp_path: object) -> None:
    model = OrpoModel(make_student("llama"))
    model.student.save_pretrained(str(tmp_path))
    assert "orpo_tree" not in (tmp_path / "config.json").read_text()  # type: ignore[operator]
