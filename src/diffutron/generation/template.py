"""Text with masks to token ids, so that what stands around a mask keeps its spelling and its spaces."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diffutron.errors import InputError
from diffutron.tokens.codec import TextCodec

MASK = re.compile(r"\[MASK\]|<mask>")


@dataclass(frozen=True)
class Template:
    """A text cut at its masks.

    Attributes:
        parts: the typed text between the masks, one more than there are masks.
        ids: the whole row, special tokens included, with the mask id at ``masks``.
        begins_word: for each mask, whether a space (or nothing) stands before it.
    """

    parts: tuple[str, ...]
    ids: tuple[int, ...]
    masks: tuple[int, ...]
    begins_word: tuple[bool, ...]


def parse_template(text: str, codec: TextCodec, *, max_tokens: int) -> Template:
    """Read ``[MASK]`` (or ``<mask>``) in a text.

    Raises:
        InputError: no mask, no text, or more tokens than the model reads.
    """
    parts = MASK.split(text)
    if len(parts) == 1:
        raise InputError(f"the text has no mask: {_shown(text)}; put [MASK] where a word is to be filled in")
    ids, masks, begins_word = [codec.start_id], list[int](), list[bool]()
    for number, part in enumerate(parts):
        if number:
            before = parts[number - 1]
            # Masks that follow each other directly continue one word.
            begins_word.append(before[-1:].isspace() or (not before and number == 1))
            masks.append(len(ids))
            ids.append(codec.mask_id)
        glued = number > 0 and part and not part[0].isspace()
        ids += codec.encode_glued(part) if glued else codec.encode(part)
    ids.append(codec.end_id)
    if len(ids) > max_tokens:
        raise InputError(f"the text has {len(ids)} tokens, but the model reads at most {max_tokens}; shorten it")
    return Template(tuple(parts), tuple(ids), tuple(masks), tuple(begins_word))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
