"""From a batch and an objective to what is hidden: rates, units, complements, replacements. All of it is a function of
(seed, pass, step, example)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from diffutron.diffusion import (
    MaskedBatch,
    MaskPlan,
    Objective,
    complement,
    example_noise,
    hide_counts,
    mask_tokens,
    replace_some,
)
from diffutron.recipe import Settings
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import Batch
from diffutron.tokens.units import UNITS

# Streams of random numbers beside the one that hides: no two may be equal.
_REPLACEMENT, _TIMES = 1, 2


class MaskingSettings(Settings):
    """What is hidden together, what stands in its place, and how times are drawn."""

    unit: Literal["token", "word", "morpheme"] = "token"
    """What is hidden as a whole: a piece, a word, or a Turkish word's stem or its suffixes."""
    replace: Literal["mask", "80-10-10"] = "mask"
    """mask: hidden tokens read <mask>; 80-10-10: BERT's way, some read a random or the right token."""
    complementary: bool = False
    """Each example is asked twice, the second time for exactly what was shown the first time."""
    times: Literal["independent", "antithetic"] = "independent"
    """independent: a rate for each example; antithetic: the rates of a step are spread evenly, for less variance."""


@dataclass(frozen=True)
class Masker:
    """Hides tokens for training."""

    objective: Objective
    settings: MaskingSettings
    codec: TextCodec
    seed: int

    def times(self, examples: NDArray[np.int64], *, epoch: int, step: int) -> Float[Tensor, " E"] | None:
        """The uniform number of each example of one optimizer step; None where each draws its own.

        Antithetic times are spread over the whole step, whatever micro-batches or machines share it.
        """
        if self.settings.times == "independent":
            return None
        sequence = np.random.SeedSequence((self.seed, epoch, step, _TIMES))
        start = np.random.Generator(np.random.Philox(sequence)).random()
        return torch.from_numpy((start + np.arange(len(examples)) / len(examples)) % 1.0)

    def __call__(
        self, batch: Batch, *, epoch: int, progress: float, times: Tensor | None = None
    ) -> Iterator[tuple[MaskedBatch, MaskPlan]]:
        """One masked batch, or two that complement each other, with the plan of each."""
        keys = [(epoch, example) for example in batch.examples]
        lengths: int | Sequence[int] = batch.x0.shape[1] if batch.segments is None else batch.lengths
        u, noise = example_noise(self.seed, keys, lengths)
        if self.settings.unit != "token":
            noise = noise.gather(1, UNITS[self.settings.unit](batch.x0, self.codec))
        num_maskable = batch.sum_by_example(batch.can_mask.double()).long()
        plan = self.objective.plan(u if times is None else times, num_maskable=num_maskable, progress=progress)
        mask_id = self.codec.mask_id
        if plan.count is None:
            masked = mask_tokens(
                batch.x0, batch.spread(plan.mask_rate), can_mask=batch.can_mask, noise=noise, mask_token_id=mask_id
            )
        else:
            sizes = batch.lengths if batch.segments is not None else [batch.x0.shape[1]] * len(batch.x0)
            masked = hide_counts(
                batch.x0, plan.count, can_mask=batch.can_mask, noise=noise, lengths=sizes, mask_token_id=mask_id
            )
        yield self._corrupted(masked, keys, lengths), plan
        if self.settings.complementary:
            yield complement(masked, mask_id), self.objective.complement(plan)

    def _corrupted(self, masked: MaskedBatch, keys: list[tuple[int, int]], lengths: int | Sequence[int]) -> MaskedBatch:
        if self.settings.replace == "mask":
            return masked
        _, noise = example_noise(self.seed, [(*key, _REPLACEMENT) for key in keys], lengths)
        return replace_some(masked, noise, self.codec.text_ids)
