"""Where the sampler's logits come from: a denoiser, read at the positions that somebody looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from diffutron.model import Denoiser
from diffutron.model.attention import Memory
from diffutron.model.int8 import Int8Linear, in_int8
from diffutron.recipe import Settings


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

    def start(self) -> None:
        """Other rows follow: forget what is remembered."""
        ...

    def forget(self, row: int) -> None:
        """A row is over."""
        ...

    def read(self, looks: Sequence[Look]) -> Float[Tensor, "N C"]:
        """Logits at all positions looked at, row after row; -inf for what may never be drawn. They are the caller's to
        change until the next call."""
        ...


class ReaderSettings(Settings):
    """How a denoiser is read. What is given is exact; everything else trades a little of it for speed."""

    refresh: int = Field(default=1, ge=1)
    """Denoiser calls from one full pass to the next. In between only the active block is computed, and sees the rest of
    the row as it was. 1: every pass is full."""
    vicinity: int = Field(default=0, ge=0)
    """So many positions on either side of the block are computed with it."""
    int8: bool = False
    """Linear layers in 8 bits, on CPUs."""


EXACT = ReaderSettings()
FAST = ReaderSettings(refresh=16, vicinity=8, int8=True)


@dataclass
class _Row:
    """What was computed of a row: its tokens then, and the last layer at some positions."""

    tokens: list[int]
    block: tuple[int, ...]
    calls: int
    """since the last full pass, that one included"""
    memory: tuple[Memory, int] | None
    lines: dict[int, int]
    """of each position in ``hidden``"""
    hidden: Float[Tensor, "l D"]


class DenoiserReader:
    """Reads a denoiser with the weights that it has when the reader is made. A row that is as it was is not computed
    again.

    Args:
        bias: added to every logit, [V]: -inf forbids an id. It costs nothing, for the decoder adds a bias anyway.
        columns: give the logits of these ids only, in ascending order.
    """

    def __init__(
        self, denoiser: Denoiser, *, pad_id: int, bias: Float[Tensor, " V"], settings: ReaderSettings = EXACT,
        columns: Int[Tensor, " C"] | None = None,
    ) -> None:  # fmt: skip
        self.denoiser, self.pad_id, self.settings, self.columns = denoiser, pad_id, settings, columns
        self.device = next(denoiser.parameters()).device
        weight, own = denoiser.decoder.weight.detach(), denoiser.decoder.bias
        bias = (bias.to(self.device) if own is None else own.detach() + bias.to(self.device)).to(weight.dtype)
        if columns is not None:
            weight, bias = weight[columns.to(self.device)], bias[columns.to(self.device)]
        self._decode: Callable[[Tensor], Tensor] = FewRowsLinear(weight, bias)
        if settings.int8 and self.device.type == "cpu":
            self.denoiser, self._decode = in_int8(denoiser), Int8Linear(weight, bias)
        self._rows: dict[int, _Row] = {}

    def session(self) -> DenoiserReader:
        """The same reader with a memory of its own, for rows that are read while others are."""
        session = copy(self)
        session._rows = {}
        if isinstance(self._decode, FewRowsLinear):
            session._decode = FewRowsLinear(self._decode.weight, self._decode.bias)
        return session

    def start(self) -> None:
        self._rows.clear()

    def forget(self, row: int) -> None:
        self._rows.pop(row, None)

    @torch.no_grad()
    def read(self, looks: Sequence[Look]) -> Float[Tensor, "N C"]:
        if self.settings.refresh == 1:
            self._compute_whole([look for look in looks if not self._is_known(look)])
        else:
            self._compute_parts([look for look in looks if not self._is_known(look)])
        known = [(self._rows[look.row], look.where) for look in looks]
        features = torch.cat([row.hidden[[row.lines[position] for position in where]] for row, where in known])
        return self._decode(self.denoiser.family.transform(self.denoiser.model, features)).float()

    def _is_known(self, look: Look) -> bool:
        row = self._rows.get(look.row)
        return row is not None and row.tokens == look.tokens and all(position in row.lines for position in look.where)

    def _compute_whole(self, looks: Sequence[Look]) -> None:
        """One padded batch."""
        if not looks:
            return
        xt, attention_mask = batch_of([look.tokens for look in looks], self.pad_id)
        hidden = self.denoiser.hidden_states(xt.to(self.device), attention_mask=attention_mask.to(self.device))
        for look, line in zip(looks, hidden, strict=True):
            wanted = sorted({*look.where, *look.block})
            lines = {position: place for place, position in enumerate(wanted)}
            self._rows[look.row] = _Row(list(look.tokens), tuple(look.block), 1, None, lines, line[wanted])

    def _compute_parts(self, looks: Sequence[Look]) -> None:
        """A batch for each number of tokens and of positions to compute; all rows of one length."""
        wanted = [(look, self._positions(look)) for look in looks]
        wanted.sort(key=lambda each: (len(each[0].tokens), len(each[1])))
        for (length, count), group in groupby(wanted, key=lambda each: (len(each[0].tokens), len(each[1]))):
            parts = list(group)
            positions = torch.tensor([part for _, part in parts], device=self.device)
            if count == length:
                memory = Memory(positions, torch.ones(len(parts), length, dtype=torch.bool, device=self.device))
            else:
                old = [self._rows[look.row].memory for look, _ in parts]
                memory = Memory.joined([each for each in old if each is not None], positions)
            xt = torch.tensor([[look.tokens[position] for position in part] for look, part in parts])
            hidden = self.denoiser.hidden_states(xt.to(self.device), memory=memory)
            for number, (look, part) in enumerate(parts):
                calls = 1 if count == length else self._rows[look.row].calls + 1
                lines = {position: place for place, position in enumerate(part)}
                self._rows[look.row] = _Row(
                    list(look.tokens), tuple(look.block), calls, (memory, number), lines, hidden[number]
                )

    def _positions(self, look: Look) -> list[int]:
        """All of them when a block is new or the last full pass is too old, else those in and around the block."""
        row, everything = self._rows.get(look.row), list(range(len(look.tokens)))
        if (
            row is None or row.calls >= self.settings.refresh or row.block != tuple(look.block)
            or len(row.tokens) != len(look.tokens) or not set(look.where) <= set(look.block)
        ):  # fmt: skip
            return everything
        reach = self.settings.vicinity
        near = {place for position in look.block for place in range(position - reach, position + reach + 1)}
        return [position for position in everything if position in near]


def batch_of(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids, and which of them may be seen; rows are padded to the longest."""
    xt = torch.full((len(rows), max(map(len, rows))), pad_id, dtype=torch.long)
    attention_mask = torch.zeros(xt.shape, dtype=torch.bool)
    for index, tokens in enumerate(rows):
        xt[index, : len(tokens)] = torch.tensor(tokens)
        attention_mask[index, : len(tokens)] = True
    return xt, attention_mask


class FewRowsLinear:
    """``x @ weight.T + bias`` for a few rows and a large matrix, which on a CPU takes as long as reading the matrix.

    BLAS reads it two to four times as fast in the order in which it lies. The result is written where the last one was:
    fresh memory costs the system as much as the sum.
    """

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"]) -> None:
        self.weight, self.bias = weight, bias
        self._out = weight.new_empty(0)

    def __call__(self, x: Float[Tensor, "N in"]) -> Float[Tensor, "N out"]:
        weight, bias, rows = self.weight, self.bias, len(x)
        if x.device.type != "cpu" or x.dtype != torch.float32 or rows > 32:
            return F.linear(x, weight, bias)
        if rows == 1:
            return self(x.repeat(2, 1))[:1]  # BLAS takes another, slower way with one row
        if len(self._out) < rows:
            self._out = weight.new_empty(rows, len(weight))
        out = self._out[:rows]
        if rows <= 8:
            for part, lines in zip(x.split(4), out.split(4), strict=True):
                torch.add(torch.mm(weight, part.t()).t(), bias, out=lines)
            return out
        columns, height = F.pad(x, (0, 0, 0, -rows % 16)).t().contiguous(), 2048
        for start in range(0, len(weight), height):
            chosen = slice(start, start + height)
            torch.add(torch.mm(weight[chosen], columns).t()[:rows], bias[chosen], out=out[:, chosen])
        return out
