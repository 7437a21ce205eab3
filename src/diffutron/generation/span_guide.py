"""Keeps a constraint while the hidden positions of a span are filled in any order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from diffutron.errors import InputError
from diffutron.generation.automaton import Automaton, merged_columns
from diffutron.tokens.codec import TextCodec

_DEAD = 0


def surfaces(codec: TextCodec) -> list[str]:
    """How each piece reads inside a text, with the space that it carries; nothing for ids that stand for no text."""
    texts = []
    for index, text in enumerate(codec.piece_texts):
        if index in codec.special_ids or "�" in text:
            texts.append("")  # a special token, or a part of a character
        elif codec.starts_word[index]:
            texts.append(" " + text.lstrip(" "))
        else:
            texts.append(text)
    return texts


class PieceAutomaton:
    """An automaton over characters, read a piece at a time.

    Args:
        may_be_written: which ids may be written at all.
        end_id: a piece that ends the text, and may stand wherever the text may end. Positions after it may stay
            hidden, so a piece that stands somewhere keeps the end from coming before it.
    """

    def __init__(
        self, automaton: Automaton, codec: TextCodec, *, may_be_written: Bool[NDArray[np.bool_], " V"],
        end_id: int | None = None,
    ) -> None:  # fmt: skip
        self.start = automaton.start
        columns = {char: int(column) for char, column in zip(automaton.alphabet, automaton.classes, strict=True)}
        texts = surfaces(codec)[: len(may_be_written)]
        spelled = np.array([bool(text) and all(char in columns for char in text) for text in texts])
        usable = may_be_written[: len(texts)] & spelled
        longest = max((len(text) for text, good in zip(texts, usable, strict=True) if good), default=0)
        unread = len(may_be_written) - len(texts)
        read = np.full((len(texts), longest), -1, dtype=np.int32)
        for index in np.flatnonzero(usable):
            read[index, : len(texts[index])] = [columns[char] for char in texts[index]]
        # Pieces that read alike to the automaton share a group.
        kinds, group = np.unique(read, axis=0, return_inverse=True)
        group = np.concatenate([group.reshape(-1), np.full(unread, -1)])
        size = len(automaton.table)
        after: Int[NDArray[np.int32], "S G"] = np.repeat(np.arange(size, dtype=np.int32)[:, None], len(kinds), axis=1)
        for place in range(longest):
            going = np.flatnonzero(kinds[:, place] >= 0)
            after[:, going] = automaton.table[after[:, going], kinds[going, place]]
        after[:, kinds[:, 0] < 0 if longest else slice(None)] = _DEAD
        nothing = np.zeros((size, 2), dtype=np.int32)
        after = np.concatenate([after, nothing], axis=1)  # two groups more: what cannot be read, and the end
        group[group < 0] = len(kinds)
        accepts = automaton.accepts
        if end_id is not None:
            after = np.concatenate([after, np.full((1, after.shape[1]), _DEAD, dtype=np.int32)])
            after[:-1, -1] = np.where(accepts, size, _DEAD)
            group[end_id] = len(kinds) + 1
            accepts = np.append(accepts, True)
        self.after, same = merged_columns(after)
        self.group: NDArray[np.int32] = same[group]
        self.accepts: Bool[NDArray[np.bool_], " S"] = accepts
        self.ended = size if end_id is not None else None

    @cached_property
    def follows(self) -> NDArray[np.float32]:
        """[S, S]: 1 where a hidden position leads from one state to another."""
        size = len(self.after)
        found = np.zeros((size, size), dtype=np.float32)
        found[np.arange(size)[:, None], self.after] = 1.0
        found[:, _DEAD] = 0.0
        if self.ended is not None:
            found[self.ended, self.ended] = 1.0
        return found

    def first(self, begins: Bool[NDArray[np.bool_], " V"] | None) -> NDArray[np.bool_]:
        """The states to which a first piece can lead; of those pieces only, if they are given."""
        led = np.zeros(len(self.after), dtype=bool)
        led[self.after[self.start, self.group if begins is None else np.unique(self.group[begins])]] = True
        led[_DEAD] = False
        return led

    def fits(self, length: int, *, begins: Bool[NDArray[np.bool_], " V"] | None = None) -> bool:
        """Whether some text of exactly so many pieces is accepted (those after an end piece count too)."""
        states = self.first(begins).astype(np.float32)
        for _ in range(length - 1):
            states = np.minimum(states @ self.follows, 1.0)
        return bool(states[self.accepts].any())


class FirstPiece:
    """Lets through only some pieces at one position.

    Args:
        begins: which pieces.
    """

    def __init__(self, position: int, begins: Bool[NDArray[np.bool_], " V"]) -> None:
        self.position, self._others = position, torch.from_numpy(~begins)

    def adjust(self, logits: Tensor, tokens: Sequence[int | None], positions: Sequence[int]) -> None:
        lines = [line for line, position in enumerate(positions) if position == self.position]
        logits[lines] = logits[lines].masked_fill(self._others.to(logits.device), -torch.inf)

    def admits(self, tokens: Sequence[int | None], position: int, token: int) -> bool:
        return True


class SpanGuide:
    """Lets through the pieces with which the span can still be completed.

    From the left, the states that the pieces before a position may have led to; from the right, those from which the
    pieces after it can be accepted. A piece is let through if it leads from one of the first to one of the second.

    Args:
        where: the positions of the span, in ascending order.
        begins: which pieces may come first; None: all.

    Raises:
        InputError: nothing of this length is accepted.
    """

    def __init__(
        self, pieces: PieceAutomaton, where: Sequence[int], *, begins: Bool[NDArray[np.bool_], " V"] | None = None
    ) -> None:
        self.pieces, self.where, self.begins = pieces, list(where), begins
        if not pieces.fits(len(self.where), begins=begins):
            raise InputError(
                f"no text of {len(self.where)} tokens can be written that keeps the constraints; allow more tokens, or "
                "ask for less"
            )

    def adjust(self, logits: Tensor, tokens: Sequence[int | None], positions: Sequence[int]) -> None:
        inside = [(line, position) for line, position in enumerate(positions) if position in self._place]
        if not inside:
            return
        left, right = self._states(tokens)
        known = dict[tuple[bytes, bytes, bool], Tensor]()
        for line, position in inside:
            place = self._place[position]
            key = (left[place].tobytes(), right[place + 1].tobytes(), place == 0)
            if key not in known:
                known[key] = ~torch.from_numpy(self._allowed(left[place], right[place + 1], first=place == 0))
            logits[line].masked_fill_(known[key].to(logits.device), -torch.inf)

    def admits(self, tokens: Sequence[int | None], position: int, token: int) -> bool:
        if position not in self._place or position >= len(tokens):
            return True
        place = self._place[position]
        left, right = self._states(tokens)
        following = set(self.pieces.after[left[place], self.pieces.group[token]].tolist()) - {_DEAD}
        return any(bool(right[place + 1][state]) for state in following)

    @cached_property
    def _place(self) -> dict[int, int]:
        return {position: place for place, position in enumerate(self.where)}

    @cached_property
    def _first(self) -> NDArray[np.bool_]:
        return self.pieces.first(self.begins)

    def _states(self, tokens: Sequence[int | None]) -> tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]]:
        """Before each place of the span, the states reached from the left; and those accepted to the right."""
        pieces = self.pieces
        row = [tokens[position] for position in self.where if position < len(tokens)]
        size = len(pieces.after)
        left = [np.zeros(size, dtype=bool)]
        left[0][pieces.start] = True
        for token in row:
            follow = np.zeros(size, dtype=bool)
            if token is None and len(left) == 1:
                follow = self._first
            elif token is None:
                follow = left[-1].astype(np.float32) @ pieces.follows > 0
            else:
                follow[pieces.after[left[-1], pieces.group[token]]] = True
                follow[_DEAD] = False
            left.append(follow)
        right = [pieces.accepts]
        for token in reversed(row):
            if token is None:
                right.append(pieces.follows @ right[-1].astype(np.float32) > 0)
            else:
                right.append(right[-1][pieces.after[:, pieces.group[token]]] & (np.arange(size) != _DEAD))
        return left, right[::-1]

    def _allowed(self, left: NDArray[np.bool_], right: NDArray[np.bool_], *, first: bool) -> NDArray[np.bool_]:
        good = right.copy()
        good[_DEAD] = False
        groups: NDArray[np.bool_] = np.any(good[self.pieces.after[left]], axis=0)
        allowed = groups[self.pieces.group]
        if first and self.begins is not None:
            allowed = allowed & self.begins
        return allowed
