"""Which model sampled a trace: a cheap, stable hash of a model directory."""

import hashlib
import json
import struct
from pathlib import Path

# Reading a 7B model whole would take half a minute; a few kilobytes of each tensor take milliseconds.
_TENSOR_BYTES = 4096
_EDGE_BYTES = 1 << 20
_HEADER_LIMIT = 100 << 20
# Files beside the weights that change what is sampled; a model card or a training log does not.
_READ_WHOLE = (".json", ".jinja", ".model", ".txt", ".py")


def model_fingerprint(path_or_name: str | Path) -> str:
    """16 hex digits for a model directory; a hub name stands for itself.

    The hash covers, by relative name: configuration, tokenizer and template files whole; of each safetensors file its
    size, its header, and the first 4 KiB of every tensor; of other weight files the size and the first and last MiB. So
    it is not a proof of equality, but training, merging or converting a model changes it. File times and the
    directory's own name do not count.
    """
    path = Path(path_or_name)
    if not path.is_dir():
        return f"{path_or_name}"
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        sampled = _sampled(file)
        if sampled is not None:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            digest.update(sampled)
    return digest.hexdigest()[:16]


def _sampled(file: Path) -> bytes | None:
    """Digest of the bytes of a file that count; None for a file that does not."""
    if not file.is_file():
        return None
    if file.suffix == ".safetensors":
        return _safetensors(file)
    if file.suffix in _READ_WHOLE:
        return hashlib.sha256(file.read_bytes()).digest()
    if file.suffix in (".bin", ".pt", ".pth", ".gguf"):
        return _edges(file)
    return None


def _safetensors(file: Path) -> bytes:
    """The header says where each tensor begins (https://huggingface.co/docs/safetensors, 'Format')."""
    with file.open("rb") as opened:
        first = opened.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 0 < length <= _HEADER_LIMIT:
            return _edges(file)
        header = opened.read(length)
        try:
            tensors = json.loads(header)
        except ValueError:
            return _edges(file)
        digest = hashlib.sha256(header)
        for name, tensor in sorted(tensors.items()):
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                opened.seek(8 + length + begin)
                digest.update(opened.read(min(_TENSOR_BYTES, end - begin)))
        return digest.digest()


def _edges(file: Path) -> bytes:
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(_EDGE_BYTES))
        opened.seek(max(0, file.stat().st_size - _EDGE_BYTES))
        digest.update(opened.read())
    return digest.digest()
