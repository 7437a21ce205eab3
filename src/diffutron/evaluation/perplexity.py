"""Masked perplexity: how surprised the model is by tokens it cannot see, at one mask rate, on fixed masks.

It is no likelihood, and comparable only between models with the same tokenizer; see docs/explanation/perplexity.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffutron.errors import DataError, InputError
from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.questions import TextQuestions, ask, ask_for_texts, window_tokens
from diffutron.evaluation.score import Difference, bootstrap_ratio, exp, paired_difference
from diffutron.model import Denoiser
from diffutron.tokens.codec import TextCodec


@dataclass(frozen=True)
class TextSums:
    """Per text: the sum of nats over its hidden tokens, and how many there were.

    Attributes:
        kept: the number of each text among those that were given.
    """

    kept: list[int]
    nll: NDArray[np.float64]
    num_masked: NDArray[np.float64]


@dataclass(frozen=True)
class MaskedPerplexity:
    """The score with everything that is needed to repeat it or to doubt it.

    Attributes:
        perplexity: exp of ``nll``; ``low`` and ``high`` bound its 95 % interval over documents, and are not-a-number
            where there is one.
        nll: nats a hidden token, averaged over all hidden tokens of all texts.
        top1: share of hidden tokens that the model ranks first.
        num_tokens: tokens that could be hidden (no special tokens).
        unit, replace: see :class:`~diffutron.evaluation.hiding.AtRate`.
        tokenizer, fingerprint: 16 digits that change with the tokenizer, or with any of the texts.
        window: ids to a window, where a text was cut into several; None if each was read whole.
        texts: what the score is made of, for comparisons.
    """

    perplexity: float
    low: float
    high: float
    nll: float
    top1: float
    num_texts: int
    num_tokens: int
    num_masked: int
    mask_rate: float
    unit: str
    replace: str
    seed: int
    tokenizer: str
    fingerprint: str
    window: int | None
    texts: TextSums = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, float | int | str | None]:
        return {name: value for name, value in asdict(self).items() if name != "texts"}


def masked_perplexity(
    denoiser: Denoiser, codec: TextCodec, texts: Iterable[str], *, mask_rate: float = 0.15, seed: int = 0,
    hiding: AtRate | None = None, max_tokens: int | None = None, micro_batch_tokens: int = 4096,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> MaskedPerplexity:  # fmt: skip
    """Hide a share of each text's tokens and score the hidden ones.

    Long texts are read in windows of 512 tokens (fewer if the model's context is shorter). Which tokens are hidden
    depends on (seed, text) alone, so two models with one tokenizer are asked the same questions, in any order.

    Args:
        texts: near-empty ones (no token) are left out.
        mask_rate: the chance of each token to be hidden; special tokens and ``<unk>`` never are.
        hiding: instead of ``mask_rate``, to hide whole words or to corrupt BERT's way.
        max_tokens: shorter windows. A model with learned positions that was trained on short rows knows nothing of
            the later positions, and is worse with every step it trains.

    Raises:
        DataError: no text holds a token, or none was hidden.
    """
    hiding = hiding or AtRate(mask_rate)
    window = window_tokens(denoiser)
    read = ask_for_texts(texts, codec, max_tokens=min(window, max_tokens or window))
    return perplexity_of(
        denoiser, codec, read, hiding, seed=seed, micro_batch_tokens=micro_batch_tokens, on_progress=on_progress
    )


def perplexity_of(
    denoiser: Denoiser, codec: TextCodec, read: TextQuestions, hiding: AtRate, *, seed: int = 0,
    micro_batch_tokens: int = 4096, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> MaskedPerplexity:  # fmt: skip
    """:func:`masked_perplexity` of whatever the questions ask for.

    Raises:
        DataError: no token was hidden.
    """
    nll, correct, masked = (np.zeros(read.num_texts) for _ in range(3))
    for answer in ask(
        denoiser, codec, read.questions, hiding, seed=seed, micro_batch_tokens=micro_batch_tokens,
        on_progress=on_progress,
    ):  # fmt: skip
        document = read.documents[answer.question]
        nll[document] += answer.nats
        correct[document] += answer.is_top1.sum()
        masked[document] += len(answer.token_nll)
    if masked.sum() == 0:
        raise DataError(f"no token was hidden at mask rate {hiding.mask_rate}; give more text or a higher rate")
    mean = float(nll.sum() / masked.sum())
    low, high = bootstrap_ratio(nll, masked, seed=seed)
    return MaskedPerplexity(
        perplexity=exp(mean), low=exp(low), high=exp(high), nll=mean, top1=float(correct.sum() / masked.sum()),
        num_texts=read.num_texts, num_tokens=read.num_asked, num_masked=int(masked.sum()),
        mask_rate=hiding.mask_rate, unit=hiding.unit, replace=hiding.replace, seed=seed, tokenizer=codec.fingerprint,
        fingerprint=read.fingerprint, window=read.window, texts=TextSums(read.kept, nll, masked),
    )  # fmt: skip


_SAME = ("tokenizer", "fingerprint", "seed", "mask_rate", "unit", "replace", "window", "num_masked")
"""what two scores have in common that were asked the same questions"""


def are_comparable(before: MaskedPerplexity, after: MaskedPerplexity) -> bool:
    """Whether both were asked the same questions: :func:`compare` takes them."""
    return all(getattr(before, name) == getattr(after, name) for name in _SAME)


def compare(before: MaskedPerplexity, after: MaskedPerplexity) -> Difference:
    """How many nats a hidden token ``after`` is above ``before``, on the same masks; negative is better.

    exp of it is the ratio of the perplexities.

    Raises:
        InputError: the two were not asked the same questions.
    """
    for name in _SAME:
        one, other = getattr(before, name), getattr(after, name)
        if one != other:
            raise InputError(f"masked perplexities are comparable on the same masks only: {name} is {one} and {other}")
    return paired_difference(before.texts.nll, after.texts.nll, before.texts.num_masked, seed=before.seed)


def check_same_tokenizer(before: str, its: TextCodec, after: str, codec: TextCodec) -> None:
    """What :func:`compare` needs, before anything is measured.

    Raises:
        InputError: two models, by name, have different tokenizers.
    """
    if its.fingerprint != codec.fingerprint:
        raise InputError(
            f"{before} has another tokenizer than {after}: their masked perplexities are not comparable; leave it out, "
            "or use diffutron eval compare"
        )


@dataclass(frozen=True)
class GroupScore:
    """Masked perplexity of a part of the texts, or of the hidden tokens.

    Attributes:
        num_texts: those with a hidden token in this part.
    """

    name: str
    perplexity: float
    low: float
    high: float
    nll: float
    num_texts: int
    num_masked: int


def by_group(result: MaskedPerplexity, groups: Sequence[Hashable]) -> list[GroupScore]:
    """The score of each group of texts, the largest group first.

    Args:
        groups: for each text that was given, in order, the group it belongs to.
    """
    labels = np.asarray([str(groups[place]) for place in result.texts.kept])
    names, counts = np.unique(labels, return_counts=True)
    return [
        group_score(str(name), result.texts.nll[labels == name], result.texts.num_masked[labels == name], result.seed)
        for name in names[np.argsort(-counts, kind="stable")]
    ]


def group_score(name: str, nll: NDArray[np.float64], masked: NDArray[np.float64], seed: int) -> GroupScore:
    """From each text's sum of nats and number of hidden tokens; not-a-number if there are none."""
    total = masked.sum()
    mean = float(nll.sum() / total) if total else math.nan
    low, high = bootstrap_ratio(nll, masked, seed=seed) if total else (math.nan, math.nan)
    return GroupScore(name, exp(mean), exp(low), exp(high), mean, int((masked > 0).sum()), int(total))
