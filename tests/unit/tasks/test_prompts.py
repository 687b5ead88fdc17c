"""Token ids of prompts and completions, with tokenizers made here."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from orpo_ray.errors import InputError
from orpo_ray.tasks.prompts import PLAIN_TEMPLATE, encode_completion, render_prompt

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [{"role": "user", "content": "Why?"}]
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
BOS, EOS, IM_START, IM_END = range(4)


def _byte_level(
    *, adds_bos: bool, template: str | None, eos: str = "</s>", adds_eos: bool = False
) -> PreTrainedTokenizerFast:
    """Bytes as tokens, as GPT-2 and Llama 3 without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*SPECIAL, *alphabet])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _finished(backend, adds_bos, adds_eos, template, eos)


def _sentencepiece(*, adds_bos: bool, template: str | None) -> PreTrainedTokenizerFast:
    """Characters as tokens and a space put before a text, as Llama 2 and TinyLlama."""
    characters = [chr(code) for code in range(33, 127)] + ["\n", "▁"]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*SPECIAL, *characters])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace()
    return _finished(backend, adds_bos, False, template, "</s>")


def _finished(
    backend: Tokenizer, adds_bos: bool, adds_eos: bool, template: str | None, eos: str
) -> PreTrainedTokenizerFast:
    single = " ".join(["<s>"] * adds_bos + ["$A"] + ["</s>"] * adds_eos)
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token=eos,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("writes_bos", [False, True])
def test_a_chat_template_decides_on_the_begin_token(adds_bos: bool, writes_bos: bool) -> None:
    tokenizer = _byte_level(adds_bos=adds_bos, template="{{ bos_token }}" * writes_bos + CHATML)
    ids = render_prompt(tokenizer, MESSAGES)
    assert ids.count(BOS) == writes_bos
    assert ids[writes_bos] == IM_START
    assert tokenizer.decode(ids).endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_that_writes_the_begin_token_twice_gets_one() -> None:
    ids = render_prompt(_byte_level(adds_bos=True, template="{{ bos_token }}{{ bos_token }}" + CHATML), MESSAGES)
    assert ids[:2] == [BOS, IM_START]


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("adds_eos", [False, True])
def test_the_plain_template_has_the_tokenizers_own_begin_token_and_never_an_end(adds_bos: bool, adds_eos: bool) -> None:
    tokenizer = _byte_level(adds_bos=adds_bos, template=None, adds_eos=adds_eos)
    ids = render_prompt(tokenizer, MESSAGES)
    assert ids.count(BOS) == adds_bos
    assert (ids[0] == BOS) is adds_bos
    assert EOS not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Why?\n\nAnswer:\n"
    with_template = _byte_level(adds_bos=adds_bos, template=PLAIN_TEMPLATE)
    assert render_prompt(with_template, MESSAGES) == ids[adds_bos:]


@pytest.mark.parametrize("eos", ["</s>", "<|im_end|>"])
def test_a_completion_ends_with_the_tokenizers_end_token_once(eos: str) -> None:
    tokenizer = _byte_level(adds_bos=True, template=CHATML, eos=eos, adds_eos=True)
    ids = encode_completion(tokenizer, "It is 42.")
    assert ids[-1] == SPECIAL.index(eos)
    assert tokenizer.decode(ids[:-1]) == "It is 42."
    assert not set(ids[:-1]) & {BOS, EOS, IM_START, IM_END}
    assert encode_completion(tokenizer, f"It is 42.{eos}") == ids
    assert encode_completion(tokenizer, "") == [SPECIAL.index(eos)]


def test_special_tokens_in_a_teachers_text_are_characters() -> None:
    tokenizer = _byte_level(adds_bos=False, template=CHATML, eos="<|im_end|>")
    ids = encode_completion(tokenizer, "a<s>b</s><|im_start|>c")
    assert ids.count(IM_END) == 1
    assert not set(ids) & {BOS, EOS, IM_START}
    assert tokenizer.decode(ids[:-1]) == "a<s>b</s><|im_start|>c"


@pytest.mark.parametrize("text", ["The answer is 42.", " leading space", "\nleading line", "x", "<s>tail"])
@pytest.mark.parametrize("template", [CHATML, "{% for m in messages %}{{ m.content }}\n{% endfor %}>\n", None])
def test_a_completion_has_the_tokens_that_follow_the_prompt_in_one_text(text: str, template: str | None) -> None:
    # A sentencepiece tokenizer would begin a lone completion with a space that the model never sees there.
    for make in (_byte_level, _sentencepiece):
        tokenizer = make(adds_bos=True, template=template)
        prompt = render_prompt(tokenizer, MESSAGES)
        rendered = tokenizer.apply_chat_template(
            MESSAGES, chat_template=template or PLAIN_TEMPLATE, add_generation_prompt=True, tokenize=False
        )
        prompt = [token for token in prompt if token != BOS]
        together = tokenizer(rendered + text.replace("<s>", "(s)"), add_special_tokens=False).input_ids
        assert together[: len(prompt)] == prompt
        assert encode_completion(tokenizer, text.replace("<s>", "(s)")) == [*together[len(prompt) :], EOS]


def test_a_tokenizer_without_end_token_is_refused() -> None:
    tokenizer = _byte_level(adds_bos=False, template=None)
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="has no end token"):
        encode_completion(tokenizer, "x")
