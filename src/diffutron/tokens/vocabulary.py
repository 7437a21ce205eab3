"""Vocabulary trimming: keep the pieces that a set of languages needs, and the rows of the model that belong to them.

The word embeddings are two thirds of a small multilingual encoder. A Unigram tokenizer with fewer pieces still
segments every text, because all its single characters stay; it only uses more pieces for words it rarely sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from diffutron.tokens.unigram import NEWLINE, SPECIALS, WORD_START


def count_pieces(tokenizer: Tokenizer, texts: Iterable[str], *, batch_size: int = 512) -> Counter[str]:
    """How often each piece occurs when ``tokenizer`` segments ``texts``."""
    counts: Counter[str] = Counter()
    batch: list[str] = []

    def flush() -> None:
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            counts.update(encoding.tokens)
        batch.clear()

    for text in texts:
        batch.append(text)
        if len(batch) == batch_size:
            flush()
    flush()
    return counts


def choose_pieces(
    pieces: Sequence[tuple[str, float]], counts: Mapping[str, float], *, size: int
) -> list[tuple[str, float]]:
    """The special pieces, newline, every single character (with and without the word mark), then the most used
    pieces up to ``size``, in their old order.

    Raises:
        ValueError: the pieces that must stay are already more than ``size``.
    """
    scores = dict(pieces)
    always = {*SPECIALS, NEWLINE}
    singles = {piece for piece in scores if len(piece.removeprefix(WORD_START)) <= 1} - always
    room = size - len(always) - len(singles)
    if room < 0:
        raise ValueError(f"{len(singles)} single characters do not fit into {size} pieces")
    candidates = [piece for piece in scores if piece not in singles and piece not in always]
    # Ties (unseen pieces above all) go to the piece that XLM-R's own training text used more.
    chosen = set(sorted(candidates, key=lambda piece: (-counts.get(piece, 0.0), -scores[piece]))[:room])
    kept = [(piece, score) for piece, score in pieces if piece in singles or piece in chosen]
    return [*((piece, 0.0) for piece in (*SPECIALS, NEWLINE)), *kept]


def select_rows(embeddings: Tensor, old_ids: Mapping[str, int], pieces: Sequence[tuple[str, float]]) -> Tensor:
    """The rows of ``embeddings`` ([V, D]) for ``pieces``. Newline, which XLM-R reads as a space, starts as a copy of
    the space's row."""
    rows = [old_ids[WORD_START] if piece == NEWLINE else old_ids[piece] for piece, _ in pieces]
    return embeddings[torch.tensor(rows)].clone()
