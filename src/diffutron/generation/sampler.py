"""The sampler: a generator of denoising steps over canvases with fixed and free positions. There is no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from diffutron.generation.categorical import draw, filtered_log_probs
from diffutron.generation.policies import POLICIES
from diffutron.generation.repetition import penalise, repeated_ngrams
from diffutron.model import Denoiser
from diffutron.recipe import Settings


class SamplerSettings(Settings):
    """How a canvas is filled."""

    steps: int | None = Field(default=None, ge=1)
    """Denoiser calls; fewer commit several tokens at once. One for each token unless given."""
    block_length: int = Field(default=32, ge=1)
    """Tokens to a block; blocks are filled left to right, positions inside a block in any order."""
    temperature: float = Field(default=0.7, ge=0)
    """0 takes the most probable token."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw from the k most probable tokens only."""
    top_p: float | None = Field(default=0.9, gt=0, le=1)
    """Draw from the most probable tokens that together reach this probability."""
    order: Literal["confidence", "margin", "entropy", "random"] = "confidence"
    """Which position is committed first."""
    repetition_penalty: float = Field(default=1.2, ge=1)
    """Divides the probability of tokens already generated."""
    no_repeat_ngram: int = Field(default=3, ge=0)
    """No run of so many tokens is generated twice; 0 allows it."""


@dataclass(frozen=True)
class Canvas:
    """One row to denoise: ``tokens`` with the mask id at the ``free`` positions, which are in ascending order."""

    tokens: tuple[int, ...]
    free: tuple[int, ...]
    key: tuple[int, ...]
    """names the row's random numbers, e.g. (seed, hash of the prompt, sample number)"""


@dataclass(frozen=True)
class DenoisingStep:
    """What one denoiser call did to one row.

    Attributes:
        row: which canvas.
        step: denoiser calls so far for this row, from 1.
        tokens: the row now; hidden positions hold the mask id.
        committed: positions fixed by this call.
        confidence: probability of each committed token.
        closest: how near this call came to another outcome: the smallest gap between what was chosen and the next
            candidate, in log probability, in order of commitment, or in cumulative probability for draws.
        done: whether the row is finished.
    """

    row: int
    step: int
    tokens: tuple[int, ...]
    committed: tuple[int, ...]
    confidence: tuple[float, ...]
    closest: float
    done: bool


@dataclass
class _Row:
    canvas: Canvas
    tokens: list[int]
    hidden: list[int]
    steps: int
    noise: np.random.Generator
    taken: int = 0
    committed: list[int] = field(default_factory=list)

    @property
    def quota(self) -> int:
        """Tokens to commit now: an even pace at which ``steps`` calls commit all, no step left over or out."""
        total = len(self.canvas.free)
        return (self.taken + 1) * total // self.steps - self.taken * total // self.steps


def denoise(
    denoiser: Denoiser, canvases: Sequence[Canvas], settings: SamplerSettings,
    *, mask_id: int, pad_id: int, forbidden: Tensor, end_id: int | None = None,
) -> Iterator[DenoisingStep]:  # fmt: skip
    """Fill every canvas; yields a step for every row and denoiser call.

    A row's result does not depend on the others: its random numbers come from its own key, and its attention ends with
    it. Fixed tokens never change.

    Args:
        forbidden: ids that may never be drawn, [V] bool.
        end_id: closes a document; once committed, everything to its right is dropped. ``None``: never drawn.
    """
    rows = [_start(canvas, settings) for canvas in canvases]
    forbidden = forbidden.clone()
    if end_id is not None:
        forbidden[end_id] = False
    while active := [index for index, row in enumerate(rows) if row.hidden]:
        windows = [_window(rows[index], settings.block_length) for index in active]
        logits = _logits(denoiser, [rows[index].tokens for index in active], windows, pad_id)
        logits = logits.masked_fill(forbidden, -torch.inf)
        for index, window, row_logits in zip(
            active, windows, logits.split([len(window) for window in windows]), strict=True
        ):
            yield _advance(index, rows[index], window, row_logits, settings, mask_id, end_id)


def _start(canvas: Canvas, settings: SamplerSettings) -> _Row:
    noise = np.random.Generator(np.random.Philox(np.random.SeedSequence(canvas.key)))
    steps = min(settings.steps or len(canvas.free), len(canvas.free))
    return _Row(canvas, list(canvas.tokens), list(canvas.free), steps, noise)


def _window(row: _Row, block_length: int) -> list[int]:
    """The hidden positions that may be committed now: the leftmost blocks that hold enough of them."""
    quota, window = row.quota, list[int]()
    rank = {position: index for index, position in enumerate(row.canvas.free)}
    for position in row.hidden:
        block_ends = bool(window) and rank[position] // block_length != rank[window[-1]] // block_length
        if block_ends and len(window) >= quota:
            break
        window.append(position)
    return window


@torch.no_grad()
def _logits(denoiser: Denoiser, rows: list[list[int]], windows: list[list[int]], pad_id: int) -> Tensor:
    xt = torch.full((len(rows), max(map(len, rows))), pad_id, dtype=torch.long)
    attention_mask = torch.zeros(xt.shape, dtype=torch.bool)
    where = torch.zeros(xt.shape, dtype=torch.bool)
    for index, (tokens, window) in enumerate(zip(rows, windows, strict=True)):
        xt[index, : len(tokens)] = torch.tensor(tokens)
        attention_mask[index, : len(tokens)] = True
        where[index, window] = True
    device = next(denoiser.parameters()).device
    logits = denoiser(xt.to(device), attention_mask=attention_mask.to(device), where=where.to(device))
    on_cpu: Tensor = logits.float().cpu()
    return on_cpu


def _advance(
    index: int,
    row: _Row,
    window: list[int],
    logits: Tensor,
    settings: SamplerSettings,
    mask_id: int,
    end_id: int | None,
) -> DenoisingStep:
    """One step of one row: believe, draw everywhere in the window, commit the best."""
    log_probs = _beliefs(row, window, logits, settings, mask_id, end_id)
    # As many numbers every time, so that a position's number does not depend on which others are still hidden.
    u = torch.from_numpy(row.noise.random((2, len(row.canvas.free))))
    places = torch.tensor([row.canvas.free.index(position) for position in window])
    tokens, closeness = _choose(log_probs, u[0, places], settings)
    priority = POLICIES[settings.order].priority(log_probs, tokens, u[1, places])
    order = priority.argsort(descending=True, stable=True)
    chosen, left = order[: row.quota], order[row.quota :]
    closest = float(closeness[chosen].min())
    if len(left):
        closest = min(closest, float(priority[chosen[-1]] - priority[left[0]]))

    confidence = log_probs.gather(-1, tokens[:, None]).squeeze(-1).exp()
    committed = {window[line]: float(confidence[line]) for line in chosen.tolist()}
    for line in chosen.tolist():
        row.tokens[window[line]] = int(tokens[line])
    row.committed += committed
    row.hidden = [position for position in row.hidden if position not in committed]
    row.taken += 1
    _drop_after_end(row, end_id)
    kept = {position: value for position, value in committed.items() if position < len(row.tokens)}
    return DenoisingStep(
        row=index, step=row.taken, tokens=tuple(row.tokens), committed=tuple(kept),
        confidence=tuple(kept.values()), closest=closest, done=not row.hidden,
    )  # fmt: skip


def _beliefs(
    row: _Row, window: list[int], logits: Tensor, settings: SamplerSettings, mask_id: int, end_id: int | None
) -> Tensor:
    """Log probabilities at the window's positions, after repetition control and the rules for the end token."""
    first_free = row.canvas.free[0]
    log_probs = logits.double().log_softmax(dim=-1)
    penalise(log_probs, [row.tokens[position] for position in row.committed], penalty=settings.repetition_penalty)
    generated = [None if token == mask_id else token for token in row.tokens[first_free:]]
    banned = repeated_ngrams(generated, [position - first_free for position in window], n=settings.no_repeat_ngram)
    for line, repeating in enumerate(banned):
        if repeating:
            log_probs[line, sorted(repeating)] = -torch.inf
    if end_id is not None:
        # A completion holds at least one token, and a text does not end before what is given.
        last_fixed = max(set(range(len(row.canvas.tokens))) - set(row.canvas.free), default=-1)
        early = [line for line, position in enumerate(window) if position == first_free or position < last_fixed]
        log_probs[early, end_id] = -torch.inf
    return log_probs.log_softmax(dim=-1)


def _choose(log_probs: Tensor, u: Tensor, settings: SamplerSettings) -> tuple[Tensor, Tensor]:
    """A token for each line, and how close the choice was."""
    if settings.temperature == 0:
        best = log_probs.topk(2, dim=-1)
        return best.indices[:, 0], best.values[:, 0] - best.values[:, 1]
    filtered = filtered_log_probs(
        log_probs, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p
    )
    tokens = draw(filtered, u)
    cumulative = filtered.exp().cumsum(dim=-1)
    cumulative = cumulative / cumulative[:, -1:]
    above = cumulative.gather(-1, tokens[:, None]).squeeze(-1)
    width = filtered.gather(-1, tokens[:, None]).squeeze(-1).exp() / filtered.exp().sum(dim=-1)
    return tokens, torch.minimum(above - u, u - (above - width)).abs()


def _drop_after_end(row: _Row, end_id: int | None) -> None:
    ends = [position for position in row.committed if row.tokens[position] == end_id]
    if end_id is None or not ends:
        return
    end = min(ends)
    row.tokens = row.tokens[: end + 1]
    row.hidden = [position for position in row.hidden if position < end]
    row.committed = [position for position in row.committed if position <= end]
