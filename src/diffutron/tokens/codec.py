"""Text to token ids and back, for any Hugging Face fast tokenizer, without the traps of its defaults."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from diffutron.errors import InputError, ModelError
from diffutron.text import normalise, normalise_part
from diffutron.text.words import ALIKE

_WORD_MARKS = ("▁", "Ġ", " ")
_WORD = "a"
"""stands beside a part of a text, so that it is cut as it is between words"""


class TextCodec:
    """Encodes without special tokens: what a user typed stays text, even when it reads ``<mask>`` or ``</s>``.

    Attributes:
        start_id: opens every row (``<s>`` or ``[CLS]``).
        end_id: closes a document (``</s>`` or ``[SEP]``); learned in training, never scored in evaluation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.start_id = _first_id(tokenizer, "bos", "cls")
        self.end_id = _first_id(tokenizer, "eos", "sep")
        self.mask_id = _first_id(tokenizer, "mask")
        self.pad_id = _first_id(tokenizer, "pad")
        self.unk_id = tokenizer.unk_token_id
        self._encoder = _plain_encoder(tokenizer.backend_tokenizer.to_str())

    def __len__(self) -> int:
        return len(self.tokenizer)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any piece or rule: scores of masked tokens need the same."""
        return hashlib.sha256(self._encoder.to_str().encode("utf-8")).hexdigest()[:16]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text: the special tokens and ``<unk>``."""
        specials = set(self.tokenizer.all_special_ids) | {self.start_id, self.end_id, self.mask_id, self.pad_id}
        specials |= {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset(specials | ({self.unk_id} if self.unk_id is not None else set()))

    @cached_property
    def text_ids(self) -> Int[Tensor, " A"]:
        """Ids that stand for text, in order."""
        return torch.tensor([index for index in range(len(self)) if index not in self.special_ids])

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` in its normal form, without special tokens."""
        return list(self._encoding(self._encoder, normalise(text)).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            encodings = self._encoder.encode_batch([normalise(text) for text in texts], add_special_tokens=False)
        except TypeError:  # one of them, which is told apart
            return [self.encode(text) for text in texts]
        return [list(encoding.ids) for encoding in encodings]

    @staticmethod
    def _encoding(encoder: Tokenizer, text: str) -> Encoding:
        """
        Raises:
            InputError: the text holds what no UTF-8 can, as an argument that was typed in another encoding does.
        """
        try:
            encoding: Encoding = encoder.encode(text, add_special_tokens=False)
        except TypeError:
            bad = next((place for place, char in enumerate(text) if "\ud800" <= char <= "\udfff"), None)
            if bad is None:
                raise
            raise InputError(
                f"character {bad + 1} of the text is a lone surrogate ({text[bad]!a}); was it typed or read in another "
                "encoding than UTF-8?"
            ) from None
        return encoding

    def encode_beginning(self, text: str) -> list[int]:
        """Ids of a text's beginning: newlines at its end stay, and a space there belongs to what is to follow."""
        return self._cut_out(normalise_part(text).lstrip().rstrip(" "), before="")

    def encode_inside(self, text: str) -> list[int]:
        """Ids of a part of a text between others: newlines at its edges stay, a space at its end belongs to what
        follows, and letters at its beginning continue a word: ``dir`` in ``Türkiye'nin [MASK]dir``."""
        text = normalise_part(text).rstrip(" ")
        glued = "".join(itertools.takewhile(lambda char: not char.isspace(), text))
        inside = self._cut_out(text[len(glued) :], before=_WORD)
        return [*self._glued(glued), *inside] if glued else inside

    def _glued(self, text: str) -> list[int]:
        ids: list[int] = list(self._encoding(self._glued_encoder, text).ids)
        if ids and self.is_wordpiece and text[0].isalnum():
            continued = self._encoder.token_to_id("##" + (self._encoder.id_to_token(ids[0]) or ""))
            ids[0] = continued if continued is not None else ids[0]
        return ids

    def _cut_out(self, text: str, *, before: str) -> list[int]:
        """Ids of a text that begins with space if something stands before it."""
        if not text:
            return []
        after = _WORD if text.endswith("\n") else ""
        encoding = self._encoding(self._encoder, before + text + after)
        start, end = len(before), len(before) + len(text)
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        return [index for index, (_, last) in pairs if start < last <= end]

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a context and of the text that follows it directly (its space, if there is one, stands in front).

        The two are cut as one text, because what a word's pieces are depends on both sides of it. A piece that spans
        the border belongs to the continuation.
        """
        whole = normalise(context + continuation)
        pairs = zip(normalise_part(context).lstrip(), whole, strict=False)
        border = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        encoding = self._encoding(self._encoder, whole)
        cut = next((place for place, (_, end) in enumerate(encoding.offsets) if end > border), len(encoding.ids))
        return list(encoding.ids[:cut]), list(encoding.ids[cut:])

    def cut(self, text: str) -> list[tuple[int, int, int]]:
        """Ids of ``text`` exactly as it stands, each with where its piece begins and ends."""
        encoding = self._encoding(self._encoder, text)
        return [(index, *span) for index, span in zip(encoding.ids, encoding.offsets, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens leave nothing behind."""
        text: str = self._encoder.decode([i for i in ids if i not in self.special_ids], skip_special_tokens=False)
        return text

    def decode_after(self, prefix: Sequence[int], ids: Sequence[int]) -> str:
        """The text that ``ids`` add to ``prefix``, with the space that belongs between them."""
        before = self.decode(prefix)
        whole = self.decode([*prefix, *ids])
        # WordPiece decoders tidy spaces before punctuation, which may shorten the prefix itself.
        return whole[len(before) :] if whole.startswith(before) else whole[len(before.rstrip()) :]

    @cached_property
    def starts_word(self) -> NDArray[np.bool_]:
        """For each id, whether its piece begins a word (it carries a space before it)."""
        pieces = self._encoder.get_vocab(with_added_tokens=True)
        starts = np.zeros(max(len(self), *(index + 1 for index in pieces.values())), dtype=bool)
        for piece, index in pieces.items():
            starts[index] = not piece.startswith("##") if self.is_wordpiece else piece.startswith(_WORD_MARKS)
        return starts

    def begins_word(self, vocabulary: int) -> NDArray[np.bool_]:
        """:attr:`starts_word` for the rows of a model's vocabulary; those that belong to no piece begin nothing."""
        begins = np.zeros(vocabulary, dtype=bool)
        known = self.starts_word[:vocabulary]
        begins[: len(known)] = known
        return begins

    @cached_property
    def marks_first_word(self) -> bool:
        """Whether a text's first word carries a word mark too (SentencePiece's dummy prefix)."""
        ids = self.encode("a")
        return bool(ids) and bool(self.starts_word[ids[0]])

    @cached_property
    def blank_ids(self) -> frozenset[int]:
        """Ids whose text is nothing but space: newline, a lone word mark."""
        marks = str.maketrans(dict.fromkeys((*_WORD_MARKS, "Ċ", "ĉ", "č"), " "))
        vocabulary = self._encoder.get_vocab(with_added_tokens=True)
        return frozenset(index for piece, index in vocabulary.items() if not piece.translate(marks).strip())

    @cached_property
    def is_letters(self) -> NDArray[np.bool_]:
        """For each id, whether its piece is letters and nothing else."""
        return np.array([text.strip().isalpha() for text in self.piece_texts])

    @cached_property
    def apostrophe_ids(self) -> frozenset[int]:
        """Ids of the pieces that are an apostrophe, or what is mistaken for one."""
        return frozenset(index for index, text in enumerate(self.piece_texts) if text.strip() in tuple(ALIKE))

    def piece_text(self, index: int) -> str:
        """How one piece reads, without the space it may carry."""
        text: str = self._encoder.decode([index], skip_special_tokens=False)
        return (text.removeprefix("##") if self.is_wordpiece else text).strip()

    @cached_property
    def piece_texts(self) -> list[str]:
        """How each piece reads by itself, in the order of ids; as far as the decoder shows it, with its space."""
        texts: list[str] = self._encoder.decode_batch(
            [[index] for index in range(len(self.starts_word))], skip_special_tokens=False
        )
        return [text.removeprefix("##") for text in texts] if self.is_wordpiece else texts

    def log_frequency(self, ids: Sequence[int]) -> float:
        """How frequent pieces are, as far as the vocabulary says: the sum of their Unigram scores, in nats; of other
        vocabularies, less for every piece."""
        return float(self._piece_scores[list(ids)].sum())

    @cached_property
    def _piece_scores(self) -> NDArray[np.float64]:
        model = json.loads(self._encoder.to_str())["model"]
        size = max(len(self), len(self.starts_word))
        scores = np.full(size, -10.0)
        if model["type"] == "Unigram":
            scores[: len(model["vocab"])] = [score for _, score in model["vocab"]]
        return scores

    @cached_property
    def is_wordpiece(self) -> bool:
        """Whether pieces say that they continue a word, and nothing says where spaces were."""
        return bool(json.loads(self._encoder.to_str())["model"]["type"] == "WordPiece")

    @cached_property
    def _glued_encoder(self) -> Tokenizer:
        """The same tokenizer, but a text's first word gets no mark of its own."""
        layout = json.loads(self._encoder.to_str())
        parts = [layout.get("pre_tokenizer") or {}]
        parts += parts[0].get("pretokenizers", [])
        for part in parts:
            if part.get("type") == "Metaspace":
                part["prepend_scheme"] = "never"
            if "add_prefix_space" in part:
                part["add_prefix_space"] = False
        return _plain_encoder(json.dumps(layout))


def _plain_encoder(layout: str) -> Tokenizer:
    """A tokenizer to which special tokens are text like any other."""
    parts = json.loads(layout)
    model = parts["model"]
    if model["type"] == "Unigram":
        # SentencePiece lists specials among the pieces, with the best score there is: "<s>" in a text would become one.
        # No text is cut into a piece with a space inside, for spaces are word marks by then.
        specials = [token["id"] for token in parts["added_tokens"] if token["special"]]
        parts["added_tokens"] = [token for token in parts["added_tokens"] if not token["special"]]
        for index in specials:
            if index < len(model["vocab"]):
                model["vocab"][index][0] = f"special {index}"
    encoder = Tokenizer.from_str(json.dumps(parts))
    encoder.no_truncation()
    encoder.no_padding()
    encoder.encode_special_tokens = True
    return encoder


def _first_id(tokenizer: PreTrainedTokenizerFast, *names: str) -> int:
    for name in names:
        index = getattr(tokenizer, f"{name}_token_id")
        if index is not None:
            return int(index)
    raise ModelError(
        f"the tokenizer has no {' or '.join(names)} token; a masked diffusion model needs one (is this a decoder?)"
    )
