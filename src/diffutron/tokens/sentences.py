"""Where a long text is cut so that a row ends with a sentence: decided on pieces, which are all that a row keeps."""

from __future__ import annotations

from collections.abc import Sequence

from diffutron.tokens.codec import TextCodec

_ENDS = (".", "!", "?", "…")
_CLOSING = "\"'’”»)]}›"
_OPENING = "\"'‘’“”„«‹([{—–-•*"


class SentenceCut:
    """Ends a row after the last sentence that leaves it at least half full, else before a word, else anywhere.

    A sentence ends with a newline, or with ``. ! ? …`` and closing marks before a word with a space in front, unless
    that word begins with a small letter (``19. yüzyıl``) in a vocabulary that has capitals. ``3.5`` and ``T.C.`` hold
    no end. WordPiece keeps no spaces: there a digit or a mark begins no sentence, and a lone letter's point ends none.
    """

    def __init__(self, codec: TextCodec) -> None:
        spaced = not codec.is_wordpiece
        texts = [text.strip() for text in codec.piece_texts]
        words = [text.lstrip(_OPENING) for text in texts]
        marked = codec.starts_word.tolist()
        has_capitals = any(text[:1].isupper() for text in texts)

        def starts(piece: int) -> bool:
            word, is_mark = words[piece], not texts[piece].strip(_CLOSING)
            return marked[piece] and (spaced or word[:1].isalnum() or (not word and not is_mark))

        pieces = range(len(texts))
        self._breaks = [text.rstrip(" \t").endswith("\n") for text in codec.piece_texts]
        self._starts = [starts(piece) or self._breaks[piece] for piece in pieces]
        self._opens = [self._starts[piece] and (spaced or not words[piece][:1].isdigit()) for piece in pieces]
        self._small = [has_capitals and word[:1].islower() for word in words]
        self._bare = [not word and not self._breaks[piece] for piece, word in enumerate(words)]
        self._ends = [text.rstrip(_CLOSING).endswith(_ENDS) for text in texts]
        self._closes = [bool(text) and not text.strip(_CLOSING) for text in texts]
        self._initials = [
            not spaced and marked[piece] and len(text) == 1 and text.isalpha() for piece, text in enumerate(texts)
        ]

    def __call__(self, ids: Sequence[int], start: int, end: int) -> int:
        """Where the row that begins at ``start`` ends, at most at ``end``, where ``ids`` still go on."""
        places = range(end, start + (end - start + 1) // 2 - 1, -1)
        sentence = next((place for place in places if self._begins_sentence(ids, place)), None)
        if sentence is not None:
            return sentence
        return next((place for place in places if self._starts[ids[place]]), end)

    def _begins_sentence(self, ids: Sequence[int], place: int) -> bool:
        if self._breaks[ids[place - 1]]:
            return True
        if not self._opens[ids[place]]:
            return False
        word, last = place, place - 1
        while self._bare[ids[word]] and word + 1 < len(ids):
            word += 1
        if self._small[ids[word]]:
            return False
        while last > 0 and self._closes[ids[last]]:
            last -= 1
        return self._ends[ids[last]] and not (last > 0 and self._initials[ids[last - 1]])
