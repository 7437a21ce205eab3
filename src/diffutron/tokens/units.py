"""What is hidden together: pieces of one word, or of one part of a Turkish word."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from diffutron.text.morphemes import stem_length
from diffutron.tokens.codec import TextCodec


def words(x0: Int[Tensor, "B L"], codec: TextCodec) -> Int[Tensor, "B L"]:
    """For each position, where its word begins; special tokens and newlines are words of their own.

    A suffix belongs to the word before its apostrophe. Punctuation belongs to the word that it is written to, but in
    WordPiece, which does not say that it is.
    """
    return _first_of_unit(_word_starts(x0, codec))


def morphemes(x0: Int[Tensor, "B L"], codec: TextCodec) -> Int[Tensor, "B L"]:
    """For each position, where its word's stem or suffixes begin: a word is at most two units.

    A piece that holds both the end of the stem and the start of the suffixes goes with the stem.
    """
    starts = _word_starts(x0, codec)
    for row in range(len(starts)):
        borders = [*starts[row].nonzero()[:, 0].tolist(), starts.shape[1]]
        for start, end in itertools.pairwise(borders):
            if end - start < 2:
                continue
            ids = x0[row, start:end].tolist()
            # As a whole: a piece may hold a part of a letter's bytes, which reads as a replacement character.
            stem = stem_length(_written(ids, codec))
            for place in range(1, len(ids)):
                before = _written(ids[:place], codec)
                if len(before) >= stem and not before.endswith("\ufffd"):
                    starts[row, start + place] = True
                    break
    return _first_of_unit(starts)


def _written(ids: list[int], codec: TextCodec) -> str:
    """A word without the spaces that WordPiece reads as around an apostrophe."""
    return codec.decode(ids).replace(" ", "")


UNITS: dict[str, Callable[[Tensor, TextCodec], Tensor]] = {"word": words, "morpheme": morphemes}


def _word_starts(x0: Int[Tensor, "B L"], codec: TextCodec) -> Tensor:
    starts = torch.from_numpy(np.asarray(codec.starts_word))[x0]
    # A lone word mark is its word's first piece; a newline is nobody's.
    is_blank = torch.isin(x0, torch.tensor(sorted(codec.blank_ids))) & ~starts
    is_alone = is_blank | torch.isin(x0, torch.tensor(sorted(codec.special_ids)))
    if codec.is_wordpiece:  # it cuts Ankara'da in three, and no piece says that they are written together
        is_letters = torch.from_numpy(codec.is_letters)[x0]
        is_joint = torch.isin(x0, torch.tensor(sorted(codec.apostrophe_ids), dtype=x0.dtype))
        is_joint[:, 1:-1] &= is_letters[:, :-2] & is_letters[:, 2:]
        is_joint[:, [0, -1]] = False
        starts = starts & ~is_joint
        starts[:, 1:] &= ~is_joint[:, :-1]
    starts = starts | is_alone
    starts[:, 1:] |= is_alone[:, :-1]
    starts[:, 0] = True
    return starts


def _first_of_unit(starts: Tensor) -> Tensor:
    places = torch.arange(starts.shape[1]).expand_as(starts)
    return torch.where(starts, places, torch.zeros_like(places)).cummax(dim=1).values
