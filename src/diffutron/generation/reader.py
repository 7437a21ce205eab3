"""Where the sampler's logits come from: a denoiser, read at the positions that somebody looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diffutron.model import Denoiser


@dataclass(frozen=True)
class Look:
    """A row and the positions whose logits are wanted, in ascending order.

    ``row`` names it from call to call, for readers that remember; ``block`` are the positions that may change before
    the sampler goes on to others.
    """

    row: int
    tokens: Sequence[int]
    where: Sequence[int]
    block: Sequence[int] = ()


class Reader(Protocol):
    """Gives logits to the sampler."""

    @property
    def columns(self) -> Int[Tensor, " C"] | None:
        """The ids that the logits' columns stand for, in ascending order; None: every id in its place."""
        ...

    def read(self, looks: Sequence[Look]) -> Float[Tensor, "N C"]:
        """Logits at all positions looked at, row after row; -inf for what may never be drawn. The caller may change
        them."""
        ...


class ExactReader:
    """One forward pass over the rows as they are.

    Args:
        bias: added to every logit, [V]: -inf forbids an id. It costs nothing, for the decoder adds a bias anyway.
    """

    columns = None

    def __init__(self, denoiser: Denoiser, *, pad_id: int, bias: Float[Tensor, " V"]) -> None:
        self.denoiser, self.pad_id = denoiser, pad_id
        self.device = next(denoiser.parameters()).device
        own = denoiser.decoder.bias
        self._bias = (bias.to(self.device) if own is None else own.detach() + bias.to(self.device)).to(
            denoiser.decoder.weight.dtype
        )

    @torch.no_grad()
    def read(self, looks: Sequence[Look]) -> Float[Tensor, "N C"]:
        xt, attention_mask, where = batch_of(looks, self.pad_id)
        features = self.denoiser.features(
            xt.to(self.device), attention_mask=attention_mask.to(self.device), where=where.to(self.device)
        )
        return F.linear(features, self.denoiser.decoder.weight, self._bias).float()


def batch_of(looks: Sequence[Look], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, which of them may be seen, and which are looked at; rows are padded to the longest."""
    xt = torch.full((len(looks), max(len(look.tokens) for look in looks)), pad_id, dtype=torch.long)
    attention_mask = torch.zeros(xt.shape, dtype=torch.bool)
    where = torch.zeros(xt.shape, dtype=torch.bool)
    for index, look in enumerate(looks):
        xt[index, : len(look.tokens)] = torch.tensor(look.tokens)
        attention_mask[index, : len(look.tokens)] = True
        where[index, list(look.where)] = True
    return xt, attention_mask, where
