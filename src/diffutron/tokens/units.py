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
    """For each position, where its word begins; special tokens and newlines are words of their own."""
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
            pieces = [codec.piece_text(index) for index in x0[row, start:end].tolist()]
            stem, reached = stem_length("".join(pieces)), 0
            for place, piece in enumerate(pieces):
                if place and reached >= stem:
                    starts[row, start + place] = True
                    break
                reached += len(piece)
    return _first_of_unit(starts)


UNITS: dict[str, Callable[[Tensor, TextCodec], Tensor]] = {"word": words, "morpheme": morphemes}


def _word_starts(x0: Int[Tensor, "B L"], codec: TextCodec) -> Tensor:
    starts = torch.from_numpy(np.asarray(codec.starts_word))[x0]
    # A lone word mark is its word's first piece; a newline is nobody's.
    is_blank = torch.isin(x0, torch.tensor(sorted(codec.blank_ids))) & ~starts
    is_alone = is_blank | torch.isin(x0, torch.tensor(sorted(codec.special_ids)))
    starts = starts | is_alone
    starts[:, 1:] |= is_alone[:, :-1]
    starts[:, 0] = True
    return starts


def _first_of_unit(starts: Tensor) -> Tensor:
    places = torch.arange(starts.shape[1]).expand_as(starts)
    return torch.where(starts, places, torch.zeros_like(places)).cummax(dim=1).values
