"""Masked perplexity by how often the hidden word stands in a corpus: what a model knows, and what it guesses."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.perplexity import GroupScore, group_score
from diffutron.evaluation.questions import TextQuestions, ask, ask_for_texts, window_tokens
from diffutron.model import Denoiser
from diffutron.text import lower_tr
from diffutron.text.words import words as words_of
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.units import words

BANDS = ((0, 0, "never"), (1, 9, "1-9"), (10, 99, "10-99"), (100, 999, "100-999"), (1000, None, "1000 and more"))
"""Occurrences of a word: from, to, and the band's name."""
_LETTERS = re.compile(r"[^\W\d_]+")


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word stands in the texts: its letters before an apostrophe, in lower case the Turkish way."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(lower_tr(word.letters) for word in words_of(text))
    return counts


def perplexity_by_frequency(
    denoiser: Denoiser, codec: TextCodec, texts: Iterable[str], counts: Mapping[str, int], *,
    hiding: AtRate | None = None, seed: int = 0, micro_batch_tokens: int = 4096,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[GroupScore]:  # fmt: skip
    """The score of each band of words, from those that ``counts`` does not have to the most frequent.

    A hidden token belongs to the first run of letters in its word (``Ankara`` in ``Ankara'da``), and the two parts of
    the word count alike. Numbers and what stands around words, as punctuation, make a band of their own.
    """
    texts = list(texts)
    read = ask_for_texts(texts, codec, max_tokens=window_tokens(denoiser))
    bands = _bands_of_windows(read, [texts[place] for place in read.kept], codec, counts)
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


def _bands_of_windows(
    read: TextQuestions, texts: Sequence[str], codec: TextCodec, counts: Mapping[str, int]
) -> list[NDArray[np.int64]]:
    """For each window; a word that a border cuts is still that word."""
    whole = [_bands_of(np.asarray(codec.encode(text)), codec, counts) for text in texts]
    bands = []
    for question, document in zip(read.questions, read.documents, strict=True):
        of_text = ~np.isin(question.ids, [codec.start_id, codec.end_id])
        own = np.full(len(question.ids), len(BANDS), dtype=np.int64)
        own[of_text], whole[document] = np.split(whole[document], [int(of_text.sum())])
        bands.append(own)
    return bands


def _bands_of(ids: NDArray[np.int64], codec: TextCodec, counts: Mapping[str, int]) -> NDArray[np.int64]:
    """For each position, the number of its word's band."""
    starts = words(torch.from_numpy(ids)[None], codec)[0].numpy()
    bands = np.empty(len(ids), dtype=np.int64)
    has_letter = _has_letter(codec)
    for start in np.unique(starts):
        inside = np.flatnonzero(starts == start)
        found = _LETTERS.search(lower_tr(codec.decode(ids[inside].tolist())))
        lettered = np.flatnonzero(has_letter[ids[inside]])
        bands[inside] = len(BANDS)
        if found and len(lettered):
            first, last = lettered[0], lettered[-1]
            while first > 0 and int(ids[inside[first - 1]]) in codec.blank_ids:  # a word mark of its own
                first -= 1
            bands[inside[first : last + 1]] = _band(counts.get(found.group(), 0))
    return bands


@functools.lru_cache(maxsize=4)
def _has_letter(codec: TextCodec) -> NDArray[np.bool_]:
    """For each id; a part of a letter's bytes, which reads as a replacement character, is of a letter."""
    return np.array([bool(_LETTERS.search(text)) or "\ufffd" in text for text in codec.piece_texts])


def _band(count: int) -> int:
    return next(place for place, (_, most, _) in enumerate(BANDS) if most is None or count <= most)
