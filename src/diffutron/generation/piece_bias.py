"""Pieces that are made more or less likely, or forbidden, wherever they could stand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffutron.errors import InputError
from diffutron.tokens.codec import TextCodec

MOST_NATS = 100.0
"""of a bias, up or down; more forbids or commands, and in the end overflows"""


class PieceBias:
    """A guide that adds to the logits of pieces, named by how they read.

    Args:
        bias: nats to add for each text, from -100 to 100; minus infinity forbids. A text stands for every piece that
            reads so, with a space before it or without.

    Raises:
        InputError: no piece reads so, or the number is none or too large.
    """

    def __init__(self, bias: Mapping[str, float], codec: TextCodec) -> None:
        ids: dict[str, list[int]] = {}
        for index, text in enumerate(codec.piece_texts):
            ids.setdefault(text.strip() or text, []).append(index)
        self._values: dict[int, float] = {}
        for text, value in bias.items():
            if not (abs(value) <= MOST_NATS or value == -math.inf):
                raise InputError(f"the bias of {text!r} must be from -{MOST_NATS:g} to {MOST_NATS:g}, or -inf, "
                                 f"not {value:g}")  # fmt: skip
            if text not in ids:
                raise InputError(f"no piece of the vocabulary reads {text!r}; longer words are made of several pieces")
            self._values.update(dict.fromkeys(ids[text], value))
        self._ids = torch.tensor(list(self._values), dtype=torch.long)
        self._added = torch.tensor(list(self._values.values()))

    @property
    def forbidden(self) -> frozenset[int]:
        """Ids of the pieces that may not be written."""
        return frozenset(index for index, value in self._values.items() if value == -math.inf)

    def adjust(self, logits: Tensor, tokens: Sequence[int | None], positions: Sequence[int]) -> None:
        logits[:, self._ids.to(logits.device)] += self._added.to(logits.device)

    def admits(self, tokens: Sequence[int | None], position: int, token: int) -> bool:
        return self._values.get(token) != -math.inf
