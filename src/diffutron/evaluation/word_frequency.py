"""Masked perplexity by how often the hidden word stands in a corpus: what a model knows, and what it guesses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.perplexity import GroupScore, group_score
from diffutron.evaluation.questions import ask, ask_for_texts, window_tokens
from diffutron.model import Denoiser
from diffutron.text import lower_tr, normalise
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.units import words

BANDS = ((0, 0, "never"), (1, 9, "1-9"), (10, 99, "10-99"), (100, 999, "100-999"), (1000, None, "1000 and more"))
"""Occurrences of a word: from, to, and the band's name."""
_LETTERS = re.compile(r"[^\W\d_]+")


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word stands in the texts: letters only, in lower case the Turkish way."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_LETTERS.findall(lower_tr(normalise(text))))
    return counts


def perplexity_by_frequency(
    denoiser: Denoiser, codec: TextCodec, texts: Iterable[str], counts: Mapping[str, int], *,
    hiding: AtRate | None = None, seed: int = 0, micro_batch_tokens: int = 4096,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[GroupScore]:  # fmt: skip
    """The score of each band of words, from those that ``counts`` does not have to the most frequent.

    A hidden token belongs to the first run of letters in its word (``Ankara`` in ``Ankara'da``), and the two parts of
    the word count alike. Numbers and punctuation make a band of their own.
    """
    read = ask_for_texts(texts, codec, max_tokens=window_tokens(denoiser))
    bands = [_bands_of(each.ids, codec, counts) for each in read.questions]
    nll, masked = np.zeros((2, len(BANDS) + 1, read.num_texts))
    for answer in ask(
        denoiser, codec, read.questions, hiding or AtRate(), seed=seed, micro_batch_tokens=micro_batch_tokens,
        on_progress=on_progress,
    ):  # fmt: skip
        band = bands[answer.question][answer.look.is_scored]
        document = read.documents[answer.question]
        np.add.at(nll[:, document], band, answer.token_nll)
        np.add.at(masked[:, document], band, 1)
    names = [*(name for _, _, name in BANDS), "no word"]
    return [group_score(name, nll[band], masked[band], seed) for band, name in enumerate(names)]


def _bands_of(ids: NDArray[np.int64], codec: TextCodec, counts: Mapping[str, int]) -> NDArray[np.int64]:
    """For each position, the number of its word's band."""
    starts = words(torch.from_numpy(ids)[None], codec)[0].numpy()
    bands = np.empty(len(ids), dtype=np.int64)
    for start in np.unique(starts):
        inside = starts == start
        found = _LETTERS.search(lower_tr("".join(codec.piece_text(int(index)) for index in ids[inside])))
        bands[inside] = _band(counts.get(found.group(), 0)) if found else len(BANDS)
    return bands


def _band(count: int) -> int:
    return next(place for place, (_, most, _) in enumerate(BANDS) if most is None or count <= most)
