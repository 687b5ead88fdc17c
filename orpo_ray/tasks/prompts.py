"""Prompts and completions as token ids: the same in sampler, trainer and evaluator.

A prompt is rendered through the model's own chat template. A sampled completion keeps the sampler's ids; only a text that
another model wrote, the teacher's, is encoded here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from orpo_ray.errors import InputError
from orpo_ray.tasks.task import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
"""The chat template (Jinja) of a model whose tokenizer has none."""


def render_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """The token ids of `messages` up to where the model's turn begins.

    A chat template writes the begin token itself if the model wants one, so none is added to it. Before the plain template
    stands the one that the tokenizer adds of its own accord, if any. Never two.
    """
    ids = _encode(tokenizer, rendered(tokenizer, messages), split_special_tokens=False)
    bos = tokenizer.bos_token_id
    if not tokenizer.chat_template and bos is not None and ids[:1] != [bos] and tokenizer("x").input_ids[:1] == [bos]:
        ids = [bos, *ids]
    return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids


def encode_completion(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The token ids of a whole completion: those that follow the prompt's own, and the end token, once.

    What looks like a special token in `text` (`<s>`, another model's `<|im_end|>`) is encoded as the characters that it is,
    but for the end token that some servers leave at the end.

    Raises:
        InputError: the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer {tokenizer.name_or_path!r} has no end token; set `eos_token` in its configuration"
        )
    text = text.removesuffix(str(tokenizer.eos_token))
    # Sentencepiece tokenizers put a space before a text's first word but not before one that follows the prompt's last line.
    # So the completion is encoded behind that line, as the model sees it.
    before = _before_completion(tokenizer)
    head = _encode(tokenizer, before, split_special_tokens=True)
    whole = _encode(tokenizer, before + text, split_special_tokens=True)
    # Where the two merge across the seam there is no cut that keeps both.
    ids = whole[len(head) :] if whole[: len(head)] == head else _encode(tokenizer, text, split_special_tokens=True)
    return [*ids, tokenizer.eos_token_id]


def rendered(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> str:
    """The text of `messages` up to where the model's turn begins, without a begin token that is not in the template."""
    template = None if tokenizer.chat_template else PLAIN_TEMPLATE
    rendered: Any = tokenizer.apply_chat_template(
        cast(list[dict[str, str]], list(messages)), chat_template=template, add_generation_prompt=True, tokenize=False
    )
    return str(rendered)


def _before_completion(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text between the prompt's last special token and the completion: `assistant\\n` for ChatML."""
    text = rendered(tokenizer, [{"role": "user", "content": "x"}])
    cuts = [text.rfind(token) + len(token) for token in tokenizer.all_special_tokens if token in text]
    return text[max(cuts, default=0) :]


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str, *, split_special_tokens: bool) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens).input_ids
    return ids
