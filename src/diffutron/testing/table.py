"""A denoiser that knows the truth: the exact conditionals of a distribution small enough to be written down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diffutron.generation.reader import Look
from diffutron.model.attention import Segments


class TableDenoiser(nn.Module):
    """Gives p(x_i | what is seen) of a joint distribution over rows ``<s> x_1 … x_L </s>``.

    Attributes:
        joint: p(x), an axis of A for each of the L places, over the ids ``first``, …, ``first + A - 1``.
    """

    max_positions = 64

    def __init__(self, joint: Tensor, *, first: int, vocabulary: int, mask_id: int) -> None:
        super().__init__()
        self.joint, self.first, self.mask_id = joint.double(), first, mask_id
        self.decoder = nn.Linear(vocabulary, vocabulary, bias=False).double()
        with torch.no_grad():
            self.decoder.weight.copy_(torch.eye(vocabulary))

    def features(
        self, xt: Int[Tensor, "1 L"], *, where: Bool[Tensor, "1 L"], segments: Segments
    ) -> Float[Tensor, "N V"]:
        """Logarithms of the conditionals, as the identity decoder wants them."""
        size, rows = self.joint.shape[0], []
        for row, wanted in zip(
            xt[0].split(list(segments.lengths)), where[0].split(list(segments.lengths)), strict=True
        ):
            seen = [slice(None) if index == self.mask_id else index - self.first for index in row[1:-1].tolist()]
            for place in wanted.nonzero()[:, 0].tolist():
                logits = torch.full((self.decoder.in_features,), -1e9, dtype=torch.float64)
                axis = sum(isinstance(each, slice) for each in seen[: place - 1])
                open_part = self.joint[tuple(seen)]
                others = [each for each in range(open_part.ndim) if each != axis]
                marginal = open_part.sum(dim=others) if others else open_part
                logits[self.first : self.first + size] = (marginal / marginal.sum()).clamp(min=1e-300).log()
                rows.append(logits)
        return torch.stack(rows)


class TableReader:
    """The same as a sampler reads it: a row of places alone, whose ids are the letters 0, 1, …; the mask is next."""

    columns = None

    def __init__(self, joint: Tensor) -> None:
        self.joint, self.mask, self.calls = joint, joint.shape[0], 0

    @classmethod
    def random(cls, positions: int, letters: int, *, sharpness: float = 1.5, seed: int = 0) -> TableReader:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn([letters] * positions, generator=generator, dtype=torch.float64) * sharpness
        return cls(logits.exp() / logits.exp().sum())

    def start(self) -> None:
        pass

    def forget(self, row: int) -> None:
        pass

    def read(self, looks: Sequence[Look]) -> Tensor:
        self.calls += 1
        return torch.stack([self.conditional(look.tokens, position) for look in looks for position in look.where])

    def conditional(self, tokens: Sequence[int], position: int) -> Tensor:
        """Log probabilities of the letters at a position, given those that stand elsewhere."""
        table = self.joint
        for axis in reversed(range(table.dim())):
            if axis == position:
                continue
            token = tokens[axis]
            table = table.sum(axis) if token == self.mask else table.select(axis, token)
        return torch.cat([(table / table.sum()).log(), torch.tensor([-math.inf], dtype=torch.float64)])
