"""The likelihood bound: how many bits the model needs, at most, to spell a text out of nothing.

Unlike masked perplexity it asks at every mask rate, from one hidden token to all of them, so it bounds the negative
log-likelihood; in bits per character it is comparable between tokenizers. See docs/how-to/measure.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffutron.errors import DataError, InputError
from diffutron.evaluation.hiding import Draws
from diffutron.evaluation.questions import ask, ask_for_texts, window_tokens
from diffutron.evaluation.score import Difference, bootstrap_ratio, paired_difference
from diffutron.model import Denoiser
from diffutron.tokens.codec import TextCodec

NUM_DRAWS = 8


@dataclass(frozen=True)
class LikelihoodBound:
    """The bound with everything that is needed to repeat it or to doubt it.

    Attributes:
        bits_per_character: of the texts in their normal form; ``low`` and ``high`` bound its 95 % interval over
            documents.
        standard_error: of ``bits_per_character``, had other tokens been hidden in the same texts.
        nats_per_token: the same bound, for each scored token.
        num_tokens: tokens that were scored: no special token, no end of text.
        num_unknown: ``<unk>`` tokens. They stay visible and cost nothing, so with many of them the bound is too low.
        fingerprint: 16 digits that change with any of the texts.
        bits, characters: of each text, for comparisons.
    """

    bits_per_character: float
    low: float
    high: float
    standard_error: float
    nats_per_token: float
    num_texts: int
    num_tokens: int
    num_unknown: int
    num_characters: int
    num_draws: int
    seed: int
    fingerprint: str
    bits: NDArray[np.float64] = field(repr=False, compare=False)
    characters: NDArray[np.float64] = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, float | int | str]:
        return {name: value for name, value in asdict(self).items() if name not in ("bits", "characters")}


def compare_bounds(before: LikelihoodBound, after: LikelihoodBound) -> Difference:
    """How many bits a character ``after`` is above ``before``, on the same texts; negative is better.

    Raises:
        InputError: the two were measured on other texts.
    """
    if before.fingerprint != after.fingerprint:
        raise InputError(
            f"bounds are comparable on the same texts only: fingerprint is {before.fingerprint} and {after.fingerprint}"
        )
    return paired_difference(before.bits, after.bits, before.characters, seed=before.seed)


def likelihood_bound(
    denoiser: Denoiser, codec: TextCodec, texts: Iterable[str], *, num_draws: int = NUM_DRAWS, seed: int = 0,
    micro_batch_tokens: int = 4096, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LikelihoodBound:  # fmt: skip
    """Bound the negative log-likelihood of texts, window by window, given that the special tokens stand where they do.

    A draw hides l of a window's L tokens, l evenly from 1..L, and counts their surprise L / l times; the mean of the
    draws is an unbiased estimate of the bound (:class:`~diffutron.diffusion.CountBased`). Special tokens, ends of texts
    among them, are given and never scored; neither is ``<unk>``, which says nothing of what it stands for.

    Args:
        texts: near-empty ones (no token) are left out.
        num_draws: draws for each window of 512 tokens (fewer if the model's context is shorter), an even number.
            They belong to (seed, text, window, draw), whatever else is measured beside.

    Raises:
        InputError: ``num_draws`` is odd or below 2.
        DataError: no text holds a token that can be scored.
    """
    draws = Draws(num_draws)
    read = ask_for_texts(texts, codec, max_tokens=window_tokens(denoiser))
    if read.num_asked == 0:
        raise DataError("no text to measure: the tokenizer knows none of its characters")
    found: list[list[float]] = [[] for _ in read.questions]
    for answer in ask(
        denoiser, codec, read.questions, draws, seed=seed, micro_batch_tokens=micro_batch_tokens,
        on_progress=on_progress,
    ):  # fmt: skip
        found[answer.question].append(answer.nats)
    nats = np.asarray([sum(each) for each in found])
    errors = np.asarray([draws.standard_error(np.asarray(each)) for each in found])
    bits = np.bincount(read.documents, weights=nats) / math.log(2)
    characters = np.array(read.num_characters, dtype=float)
    low, high = bootstrap_ratio(bits, characters, seed=seed)
    return LikelihoodBound(
        bits_per_character=float(bits.sum() / characters.sum()), low=low, high=high,
        standard_error=math.sqrt((errors**2).sum()) / math.log(2) / float(characters.sum()),
        nats_per_token=float(nats.sum() / read.num_asked), num_texts=read.num_texts, num_tokens=read.num_asked,
        num_unknown=sum(int((each.ids == codec.unk_id).sum()) for each in read.questions),
        num_characters=sum(read.num_characters), num_draws=num_draws, seed=seed, fingerprint=read.fingerprint,
        bits=bits, characters=characters,
    )  # fmt: skip
