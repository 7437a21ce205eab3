"""Tokenizer surgery: what the three kinds of subword model are made of, and how to take pieces out of one.

A text whose pieces all stay is cut into the same pieces as before. For Unigram and WordPiece that needs nothing: the
best of all ways to cut it, or the longest match, is still there. Byte pair encoding *builds* its pieces, so every piece
on the way to one that stays must stay too.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Protocol

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from diffutron.errors import ModelError

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Pieces(Protocol):
    """The ``model`` part of a tokenizer.json.

    Attributes:
        scores: of every piece; higher is more common in the tokenizer's own training text.
    """

    model: dict[str, Any]
    scores: dict[str, float]

    def spelling(self, piece: str) -> Iterable[str]:
        """The single-character pieces that spell ``piece``."""

    def needs(self, piece: str) -> Iterable[str]:
        """The pieces without which no text is cut into ``piece``."""

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """The part with fewer pieces, under new numbers."""


class _Unigram:
    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.scores = dict(model["vocab"])

    def spelling(self, piece: str) -> Iterable[str]:
        return piece

    def needs(self, piece: str) -> Iterable[str]:
        return ()

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        vocab, unk = self.model["vocab"], self.model["unk_id"]
        # Should a piece stand there twice, the later one has its id.
        places = {piece: place for place, (piece, _) in enumerate(vocab)}
        fewer = [vocab[place] for piece, place in places.items() if piece in numbers]
        fewer.sort(key=lambda entry: numbers[entry[0]])
        return {**self.model, "vocab": fewer, "unk_id": None if unk is None else numbers[vocab[unk][0]]}


class _WordPiece:
    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.prefix: str = model["continuing_subword_prefix"]
        # Trainers number pieces from the common to the rare.
        self.scores = {piece: -float(index) for piece, index in model["vocab"].items()}

    def spelling(self, piece: str) -> Iterable[str]:
        inside = piece.startswith(self.prefix)
        letters = piece.removeprefix(self.prefix)
        return [self.prefix * (inside or place > 0) + letter for place, letter in enumerate(letters)]

    def needs(self, piece: str) -> Iterable[str]:
        return ()

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        return {**self.model, "vocab": {piece: numbers[piece] for piece in self.model["vocab"] if piece in numbers}}


class _BytePairs:
    def __init__(self, model: dict[str, Any]) -> None:
        if model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
            raise ModelError("a BPE tokenizer with marks inside or at the end of words cannot be trimmed")
        self.model = model
        self.scores = {piece: -float(index) for piece, index in model["vocab"].items()}
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}

    def spelling(self, piece: str) -> Iterable[str]:
        return piece

    def needs(self, piece: str) -> Iterable[str]:
        """All that is merged on the way to ``piece``. Where a text is cut into it, it was built in just this way: no
        merge reaches over the borders of a piece that is there in the end."""
        parts, made = list(piece), set[str]()
        while len(parts) > 1:
            rank, place = min((self.ranks.get(pair, math.inf), place) for place, pair in enumerate(pairwise(parts)))
            if rank == math.inf:
                break
            parts[place : place + 2] = ["".join(parts[place : place + 2])]
            made.add(parts[place])
        return made

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        vocab = {piece: numbers[piece] for piece in self.model["vocab"] if piece in numbers}
        merges = [pair for pair in self.ranks if pair[0] in vocab and pair[1] in vocab and "".join(pair) in vocab]
        return {**self.model, "vocab": vocab, "merges": merges}


_KINDS: dict[str, Callable[[dict[str, Any]], Pieces]] = {
    "Unigram": _Unigram, "WordPiece": _WordPiece, "BPE": _BytePairs
}  # fmt: skip


def pieces_of(tokenizer: PreTrainedTokenizerFast) -> Pieces:
    """The pieces of a tokenizer, after their kind.

    Raises:
        ModelError: another kind than Unigram, WordPiece and BPE.
    """
    model = _layout(tokenizer)["model"]
    if model["type"] not in _KINDS:
        raise ModelError(f"a tokenizer of the kind {model['type']} cannot be trimmed; {', '.join(_KINDS)} ones can")
    return _KINDS[model["type"]](model)


def indispensable(pieces: Pieces) -> set[str]:
    """What any text may be spelled with: single characters and bytes."""
    letters = {letter for piece in pieces.scores for letter in pieces.spelling(piece)} & pieces.scores.keys()
    if pieces.model.get("byte_fallback"):
        return letters | {piece for piece in pieces.scores if _BYTE.fullmatch(piece)}
    # A letter that is no piece of its own would be lost with the pieces that hold it.
    return letters | {piece for piece in pieces.scores if not letters.issuperset(pieces.spelling(piece))}


def keep_pieces(tokenizer: PreTrainedTokenizerFast, numbers: Mapping[str, int]) -> PreTrainedTokenizerFast:
    """A copy of ``tokenizer`` with the pieces of ``numbers`` alone, under their new ids.

    Args:
        numbers: every piece and added token that stays, numbered from 0 in the order of the old ids.

    Raises:
        ModelError: the tokenizer gives its pieces ids that cannot be kept in order.
    """
    layout = _layout(tokenizer)
    layout["model"] = pieces_of(tokenizer).cut(numbers)
    for token in layout["added_tokens"]:
        token["id"] = numbers[token["content"]]
    if layout["padding"]:
        layout["padding"]["pad_id"] = numbers[layout["padding"]["pad_token"]]
    processor = layout["post_processor"] or {}
    for part in processor.get("processors", [processor]):
        for token in part.get("special_tokens", {}).values():
            token["ids"] = [numbers[each] for each in token["tokens"]]
        for end in ("cls", "sep"):
            if end in part:
                part[end] = [part[end][0], numbers[part[end][0]]]
    backend = Tokenizer.from_str(json.dumps(layout))
    if backend.get_vocab(with_added_tokens=True) != dict(numbers):
        raise ModelError("the tokenizer numbers its pieces in a way that cannot be trimmed")
    trimmed = copy.copy(tokenizer)
    trimmed._tokenizer = backend
    return trimmed


def _layout(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    layout: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return layout
