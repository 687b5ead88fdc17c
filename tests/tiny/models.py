"""Random models of a few hundred thousand parameters, with tokenizers of their own."""

from pathlib import Path


def make_model(path: Path, family: str = "neox", vocabulary: int = 300, seed: int = 0, *, tied: bool = False) -> Path:
    """A model directory: `llama` or `neox`, random weights, a byte-level BPE tokenizer.

    Args:
        tied: its output layer has the embedding's weight.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["What is 1 plus 2? The answer is 3."] * 10, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    torch.manual_seed(seed)
    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "neox": (GPTNeoXConfig, GPTNeoXForCausalLM)}[family]
    fast.save_pretrained(path)
    model(
        config(
            vocab_size=len(fast),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=tied,
        )
    ).save_pretrained(path)
    return path
