"""Trains and scores a small language model on questions and traces, in plain PyTorch, the same way each time.

Shapes: B sequences of a batch, T tokens of the longest one, V the vocabulary.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch.nn.functional import cross_entropy

from orpo_ray.tasks import Row, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Example: TypeAlias = tuple[str, str]
"""A question, and the trace that answers it."""

BATCH = 32
MAX_NEW_TOKENS = 64
_WARMUP_STEPS = 50
_NO_TARGET = -100  # cross_entropy leaves it out


def encode(tokenizer: "PreTrainedTokenizerBase", question: str, trace: str | None = None) -> tuple[list[int], int]:
    """Token ids of the prompt and, where given, of the trace with its end token; and how many of them the prompt has.

    They equal those of `render_prompt` and `encode_completion`, which render the template anew for each row; a test says so.
    """
    prompt: list[int] = tokenizer(f"{question}\n\nAnswer:\n").input_ids
    if trace is None:
        return prompt, len(prompt)
    completion: list[int] = tokenizer(trace, add_special_tokens=False).input_ids
    return [*prompt, *completion, int(tokenizer.eos_token_id)], len(prompt)


def pretrain(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    draw: Callable[[random.Random], Example],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    report: Callable[[str], None] = print,
) -> None:
    """`steps` of AdamW, each on a fresh batch from `draw`; the loss is over the traces' tokens, not the prompts'.

    The learning rate warms up over 50 steps and falls to 0 as half a cosine.
    """
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / _WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps)),
    )
    model.train()
    for step in range(1, steps + 1):
        ids_BT, targets_BT = _batch(tokenizer, [draw(rng) for _ in range(BATCH)])
        # Padding is on the right, where causal attention never looks: no mask is needed.
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        loss = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), targets_BT[:, 1:].flatten(), ignore_index=_NO_TARGET)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 200 == 0 or step == steps:
            report(f"  step {step} of {steps}: loss {loss.item():.3f}")
    model.eval()  # type: ignore[no-untyped-call]


def _batch(tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and targets (B, T), padded on the right."""
    encoded = [encode(tokenizer, question, trace) for question, trace in examples]
    shape = (len(encoded), max(len(ids) for ids, _ in encoded))
    ids_BT = torch.full(shape, int(tokenizer.pad_token_id))
    targets_BT = torch.full(shape, _NO_TARGET)
    for row, (ids, prompt_length) in enumerate(encoded):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        targets_BT[row, prompt_length : len(ids)] = torch.tensor(ids[prompt_length:])
    return ids_BT, targets_BT


@torch.no_grad()
def answer(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", questions: Sequence[str]) -> list[str]:
    """The model's greedy completion of each question. Prompts of one length go together, so that none is padded."""
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for index, question in enumerate(questions):
        ids, length = encode(tokenizer, question)
        by_length[length].append((index, ids))
    texts = [""] * len(questions)
    for group in by_length.values():
        ids_BT = torch.tensor([ids for _, ids in group])
        made_BT = cast(Any, model).generate(
            ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=MAX_NEW_TOKENS, do_sample=False
        )
        for (index, ids), made in zip(group, made_BT, strict=True):
            texts[index] = str(tokenizer.decode(made[len(ids) :], skip_special_tokens=True))
    return texts


def accuracy(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", task: Task, rows: Sequence[Row]) -> float:
    """The share of `rows` that the model answers right, greedily."""
    texts = answer(model, tokenizer, [task.prompt(row) for row in rows])
    return sum(task.verify(row, text) for row, text in zip(rows, texts, strict=True)) / len(rows)
