"""Vocabulary trimming: which pieces a corpus needs.

The word embeddings are two thirds of a multilingual encoder, and most of their rows belong to other languages. With
fewer pieces a tokenizer still reads every text, because what pieces are made of stays; it only uses more of them for
words that it rarely sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from diffutron.errors import InputError
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import batched


@dataclass(frozen=True)
class Budget:
    """How much of a vocabulary to keep. Of several limits the tightest decides.

    Attributes:
        size: at most so many pieces, those that must stay included.
        min_count: only pieces that occur as often in the corpus.
        coverage: the most used pieces only until they make up this share of the corpus' tokens; 1 for no limit.
    """

    size: int | None = None
    min_count: float = 1
    coverage: float = 1.0


def count_pieces(codec: TextCodec, texts: Iterable[str]) -> Counter[str]:
    """How often each piece occurs in ``texts``."""
    counts: Counter[int] = Counter()
    for batch in batched(texts, 256):
        for ids in codec.encode_batch(batch):
            counts.update(ids)
    name = codec.tokenizer.backend_tokenizer.id_to_token
    return Counter({str(name(index)): count for index, count in counts.items()})


def choose_pieces(
    scores: Mapping[str, float], counts: Mapping[str, float], budget: Budget, *, always: Set[str],
    needs: Callable[[str], Iterable[str]] = lambda piece: (),
) -> set[str]:  # fmt: skip
    """``always``, then the most used pieces, each with what it is made of, within ``budget``.

    Args:
        scores: of every piece; of two pieces used alike (unseen ones above all) the higher score goes first.
        needs: the pieces without which no text is cut into this one.

    Raises:
        InputError: the pieces that must stay are already more than ``budget.size``.
    """
    if budget.size is not None and len(always) > budget.size:
        raise InputError(
            f"{budget.size} pieces are too few: {len(always)} must stay (special tokens, single characters, bytes); "
            "ask for more"
        )
    chosen = set(always)
    total, covered = sum(counts.values()), sum(counts.get(piece, 0) for piece in always)
    candidates = [piece for piece in scores if piece not in always]
    for piece in sorted(candidates, key=lambda piece: (-counts.get(piece, 0), -scores[piece])):
        if counts.get(piece, 0) < budget.min_count or (budget.coverage < 1 and covered >= budget.coverage * total):
            break
        added = {piece, *needs(piece)} - chosen
        if budget.size is None or len(chosen) + len(added) <= budget.size:
            chosen |= added
            covered += sum(counts.get(each, 0) for each in added)
    return chosen
