"""Makes the demo's teacher and student: `python -m orpo_ray.demo.build [--out DIR]`, some ten minutes on one thread.

Both are brought up on problems of the split `pretrain`, which the task never serves, so that neither has seen a problem that
the demo teaches or tests. What the student lacks is words: its problems knew half of the verbs. It reckons well, but has to
guess whether what someone "gets" or "gives" is added or taken away, and that is what the teacher can teach it.

Seeds, deterministic algorithms and one thread make the same files on the same kind of machine and versions; other CPUs sum
in another order, and end with other weights of about the same accuracy.
"""

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orpo_ray.demo.solutions import STYLES, tell
from orpo_ray.tasks.arithmetic import GAINS, LOSSES, ArithmeticTask, draw_problem

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

MODELS = Path(__file__).parent / "models"
TEST_ROWS = 500
_SEED = 0
_STEP_COUNTS = (1, 2, 3)  # one step alone is never asked, but it is where reckoning is learned first
_CORPUS_PROBLEMS = 1500
_VOCABULARY = 512  # at most: 256 bytes, then the corpus's words and numbers


@dataclass(frozen=True)
class Recipe:
    """How one model is made."""

    name: str
    about: str
    tokenizer: Callable[[list[str]], "PreTrainedTokenizerFast"]
    config: Callable[["PreTrainedTokenizerFast"], "PreTrainedConfig"]
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    steps: int
    learning_rate: float


def llama(tokenizer: "PreTrainedTokenizerFast") -> "PreTrainedConfig":
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,  # of size 32, the smallest that vLLM has on a CPU
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def gpt_neox(tokenizer: "PreTrainedTokenizerFast") -> "PreTrainedConfig":
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def digit_tokenizer(corpus: list[str]) -> "PreTrainedTokenizerFast":
    """Byte-level BPE, a number digit by digit, a begin token before each prompt, as Llama's."""
    from tokenizers import Regex, pre_tokenizers, processors

    digits = pre_tokenizers.Split(Regex(r" ?\d"), "isolated")
    fast = _byte_pair_tokenizer(corpus, [digits], pad="<pad>", bos="<s>", eos="</s>")
    begin = ("<s>", fast.bos_token_id)
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    return fast


def number_tokenizer(corpus: list[str]) -> "PreTrainedTokenizerFast":
    """Byte-level BPE, a number as one token, no begin token, as GPT-NeoX's."""
    return _byte_pair_tokenizer(corpus, [], pad="<|padding|>", bos="<|endoftext|>", eos="<|endoftext|>")


def _byte_pair_tokenizer(
    corpus: list[str], before: list["PreTokenizer"], *, pad: str, bos: str, eos: str
) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(dict.fromkeys([pad, bos, eos])),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )


TEACHER = Recipe(
    name="teacher",
    about="Llama, four layers of width 128; numbers digit by digit",
    tokenizer=digit_tokenizer,
    config=llama,
    gains=GAINS,
    losses=LOSSES,
    steps=2200,
    learning_rate=2e-3,
)
STUDENT = Recipe(
    name="student",
    about="GPT-NeoX, three layers of width 128; numbers whole",
    tokenizer=number_tokenizer,
    config=gpt_neox,
    gains=GAINS[:2],
    losses=LOSSES[:2],
    steps=2000,
    learning_rate=2e-3,
)


def corpus() -> list[str]:
    """What both tokenizers are trained on: every verb and number, so that each is one token."""
    rng = random.Random(_SEED)
    problems = [draw_problem(rng, "pretrain", _STEP_COUNTS) for _ in range(_CORPUS_PROBLEMS)]
    return [f"{problem.question}\n\nAnswer:\n{tell(problem, style)}" for problem in problems for style in STYLES]


def build(recipe: Recipe, out: Path) -> float:
    """Makes one model, writes it to `out`/its name, and returns its accuracy on the first 500 test problems."""
    import torch
    from transformers import AutoModelForCausalLM

    from orpo_ray.demo.pretrain import accuracy, pretrain

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(_SEED)
    tokenizer = recipe.tokenizer(corpus())
    model = AutoModelForCausalLM.from_config(recipe.config(tokenizer))  # type: ignore[no-untyped-call]
    print(f"{recipe.name}: {recipe.about}; {model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)

    def draw(rng: random.Random) -> tuple[str, str]:
        problem = draw_problem(rng, "pretrain", _STEP_COUNTS, recipe.gains, recipe.losses)
        return problem.question, tell(problem, rng.choice(STYLES))

    pretrain(model, tokenizer, draw, steps=recipe.steps, learning_rate=recipe.learning_rate, seed=_SEED)
    model.save_pretrained(out / recipe.name)
    tokenizer.save_pretrained(out / recipe.name)
    task = ArithmeticTask(split="test", sizes={"test": TEST_ROWS})
    right = accuracy(model, tokenizer, task, task.rows())
    print(f"{recipe.name}: right on {right:.1%} of {TEST_ROWS} test problems", flush=True)
    return right


def card(right: dict[str, float]) -> str:
    """README.md of the models' directory; `right` is each model's accuracy as a share."""
    rows = [
        f"| `{recipe.name}/` | {recipe.about} | {', '.join((*recipe.gains, *recipe.losses))} "
        f"| {recipe.steps:,} | {right[recipe.name]:.1%} |"
        for recipe in (TEACHER, STUDENT)
    ]
    table = "\n".join(
        ["| directory | model | verbs it was brought up on | steps of 32 | right |", "|---|---|---|---:|---:|", *rows]
    )
    return f"""# The demo's models

Made from nothing by `python -m orpo_ray.demo.build`; fp32, Apache-2.0 as the rest of this package. They know nothing but the
word problems of the task `arithmetic`, and have seen none that the task serves: problems are split by their sums.

{table}

Right: the share of the first {TEST_ROWS} test problems (seed 0) answered right, greedily. The student reckons nearly as well
as the teacher but knows half of the verbs: it has to guess whether what someone gets or gives is added or taken away.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=MODELS, help="where both directories go (default: the package's)")
    parser.add_argument(
        "--only", choices=[TEACHER.name, STUDENT.name], help="make this one alone, and leave README.md as it is"
    )
    options = parser.parse_args()
    right = {
        recipe.name: build(recipe, options.out) for recipe in (TEACHER, STUDENT) if options.only in (None, recipe.name)
    }
    if len(right) == 2:
        (options.out / "README.md").write_text(card(right), encoding="utf-8")


if __name__ == "__main__":
    main()
