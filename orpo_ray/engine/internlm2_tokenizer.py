"""InternLM2's tokenizer without its remote code: a sentencepiece BPE model as one of the tokenizers library.

The directory brings `tokenizer.model` and code of its own that wraps it. All that the code adds to the model is in
`tokenizer_config.json`: special tokens, some under ids that the model calls unused, and whether a prompt begins with one.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_ray.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPACE = "▁"
# What the tokenizer's own code takes where its configuration is silent.
_SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
# Kinds of pieces and of models, as sentencepiece_model.proto numbers them.
_NORMAL, _CONTROL, _USER_DEFINED, _BPE = 1, 3, 4, 2


def write_tokenizer(source: Path, target: Path) -> None:
    """Write the tokenizer of `source` to `target` so that `AutoTokenizer` reads it without remote code.

    Raises:
        InputError: no tokenizer, or one that is not InternLM2's sentencepiece BPE.
    """
    file = source / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if (source / "tokenizer.json").is_file():
        _copy(source, target, config)
        return
    from transformers import PreTrainedTokenizerFast

    special = {name: _content(config.get(name) or default) for name, default in _SPECIAL.items()}
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=sentencepiece_tokenizer(source / "tokenizer.model", config, special),
        additional_special_tokens=[_content(token) for token in config.get("additional_special_tokens") or []],
        chat_template=config.get("chat_template"),
        clean_up_tokenization_spaces=False,
        **special,
    )
    tokenizer.save_pretrained(str(target))


def sentencepiece_tokenizer(file: Path, config: Mapping[str, Any], special: Mapping[str, str]) -> "Tokenizer":
    """The tokenizer of a sentencepiece file, with the special tokens of a `tokenizer_config.json`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    proto = _read(file)
    normalizer = proto.normalizer_spec
    if proto.trainer_spec.model_type != _BPE or normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces:
        raise InputError(
            f"student.model: {file}: not the sentencepiece model of an InternLM2 (BPE over the text as it stands); "
            "save a fast tokenizer (tokenizer.json) beside it"
        )
    added = {int(place): token for place, token in (config.get("added_tokens_decoder") or {}).items()}
    # A special token may sit in a place that the model calls unused.
    pieces = [_content(added[place]) if place in added else piece.piece for place, piece in enumerate(proto.pieces)]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    learned = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, _merges(learned), unk_token=special["unk_token"], fuse_unk=True, byte_fallback=True)
    )
    begin = [normalizers.Prepend(_SPACE)] if normalizer.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*begin, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if normalizer.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    # Never cut, and never made by merging: whether they are special too decides what a decoded text leaves out.
    whole = {
        place: piece.type == _CONTROL
        for place, piece in enumerate(proto.pieces)
        if piece.type in (_CONTROL, _USER_DEFINED)
    }
    whole |= {place: _is_special(token) for place, token in added.items()}
    for place, is_special in sorted(whole.items()):
        content = pieces[place] if place < len(pieces) else _content(added[place])
        tokenizer.add_tokens([AddedToken(content, normalized=False, special=is_special)])
        if (got := tokenizer.token_to_id(content)) != place:
            raise InputError(
                f"student.model: {file}: tokenizer_config.json gives {content!r} the id {place}, but {got} is next"
            )
    bos, eos = special["bos_token"], special["eos_token"]
    begins = f"{bos} " if config.get("add_bos_token", True) else ""
    ends = f" {eos}" if config.get("add_eos_token", False) else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begins}$A{ends}",
        pair=f"{begins}$A{ends} {begins}$B{ends}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (bos, eos)],
    )
    return tokenizer


def _merges(learned: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, the best piece first: sentencepiece keeps only the pieces' scores."""
    ways = [
        (-score, len(piece), cut, piece)
        for piece, score in learned.items()
        for cut in range(1, len(piece))
        if piece[:cut] in learned and piece[cut:] in learned
    ]
    return [(piece[:cut], piece[cut:]) for *_, cut, piece in sorted(ways)]


def _read(file: Path) -> Any:
    """The parsed file; sentencepiece's own Python package brings the message classes."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(f"student.model: {file}: no sentencepiece model can be read: {error}") from None
    return proto


def _copy(source: Path, target: Path, config: dict[str, Any]) -> None:
    """A fast tokenizer is there already: all but the code that it names."""
    shutil.copy(source / "tokenizer.json", target / "tokenizer.json")
    config = {name: value for name, value in config.items() if name != "auto_map"}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (target / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _content(token: Any) -> str:
    """The text of a special token, written plainly or as a mapping with its options."""
    return str(token["content"] if isinstance(token, Mapping) else token)


def _is_special(token: Any) -> bool:
    return bool(token.get("special", True)) if isinstance(token, Mapping) else True
