"""Rows to denoise, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


class Guide(Protocol):
    """A rule that a row keeps while it is filled, in any order.

    A guide is asked for every position that may be committed now, and again for every token before it is committed
    beside others; so it never has to take anything back.
    """

    def adjust(self, logits: Tensor, tokens: Sequence[int | None], positions: Sequence[int]) -> None:
        """Change the logits [N, V] of the N ``positions`` in place; -inf forbids.

        Args:
            tokens: the row; None where it is hidden.
        """
        ...

    def admits(self, tokens: Sequence[int | None], position: int, token: int) -> bool:
        """Whether ``token`` may still be committed, now that others have been."""
        ...


@dataclass(frozen=True)
class Canvas:
    """One row to denoise: ``tokens`` with the mask id at the ``free`` positions, which are in ascending order."""

    tokens: tuple[int, ...]
    free: tuple[int, ...]
    key: tuple[int, ...]
    """names the row's random numbers, e.g. (seed, hash of the prompt, sample number)"""
    guides: tuple[Guide, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class DenoisingStep:
    """What one denoiser call did to one row.

    Attributes:
        row: which canvas.
        step: denoiser calls so far for this row, from 1.
        tokens: the row now; hidden positions hold the mask id.
        committed: positions fixed by this call.
        confidence: probability of each committed token.
        hidden_again: positions that were fixed and are not any more.
        closest: how near this call came to another outcome: the smallest gap between what was chosen and the next
            candidate, in log probability, in order of commitment, or in cumulative probability for draws.
        done: whether the row is finished.
        failed: what could not be kept, if the row was given up; its hidden positions stay hidden then.
    """

    row: int
    step: int
    tokens: tuple[int, ...]
    committed: tuple[int, ...]
    confidence: tuple[float, ...]
    closest: float
    done: bool
    hidden_again: tuple[int, ...] = ()
    failed: str | None = None
