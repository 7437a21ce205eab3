"""Fill masks jointly: several masks are one question, since the word chosen for one changes the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffutron.errors import InputError
from diffutron.generation.template import MASK, Template, check_length, parse_template
from diffutron.model import Denoiser
from diffutron.tokens.codec import TextCodec


@dataclass(frozen=True)
class Filled:
    """A way to fill all masks of a text.

    Attributes:
        text: as typed, with each mask replaced.
        tokens: the piece for each mask, as it reads.
        score: joint probability of the pieces, each given those filled before it.
    """

    text: str
    tokens: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class _Beam:
    log_prob: float
    ids: tuple[int, ...]
    open: tuple[int, ...]


def fill(denoiser: Denoiser, codec: TextCodec, text: str, *, top_k: int = 5, beams: int = 16) -> list[Filled]:
    """The most probable ways to fill every ``[MASK]`` in ``text``, best first.

    A beam search over fills: at each step a beam fills its most certain mask, so sure masks guide unsure ones. With one
    mask this is the plain ranking of the vocabulary.

    Raises:
        InputError: no mask, too many tokens, or ``top_k`` below 1.
    """
    if top_k < 1:
        raise InputError(f"--top-k must be at least 1, not {top_k}")
    template = parse_template(text, gap=MASK)
    ids, gaps = template.row(codec, [1] * len(template.lengths))
    check_length(len(ids), denoiser.max_positions)
    masks = tuple(gap[0] for gap in gaps)
    allowed = _allowed(template, codec, _vocabulary(denoiser))
    width = max(beams, top_k)
    front = [_Beam(0.0, ids, masks)]
    for _ in masks:
        # Two orders may reach one fill; the better way to it stays.
        best: dict[tuple[int, ...], _Beam] = {}
        for beam in _expand(denoiser, front, masks, allowed, width):
            if beam.ids not in best or beam.log_prob > best[beam.ids].log_prob:
                best[beam.ids] = beam
        front = sorted(best.values(), key=lambda beam: (-beam.log_prob, beam.ids))[:width]
    return [_read(beam, template, masks, codec) for beam in front[:top_k]]


@torch.inference_mode()
def _expand(denoiser: Denoiser, front: list[_Beam], masks: tuple[int, ...], allowed: Tensor, width: int) -> list[_Beam]:
    device = next(denoiser.parameters()).device
    xt = torch.tensor([beam.ids for beam in front])
    where = torch.zeros(xt.shape, dtype=torch.bool)
    for row, beam in enumerate(front):
        where[row, list(beam.open)] = True
    attention_mask = torch.ones_like(where)
    logits = denoiser(xt.to(device), attention_mask=attention_mask.to(device), where=where.to(device))
    log_probs = logits.float().cpu().double().log_softmax(dim=-1)
    found = []
    for beam, lines in zip(front, log_probs.split([len(beam.open) for beam in front]), strict=True):
        questions = torch.tensor([masks.index(position) for position in beam.open])
        lines = lines.masked_fill(~allowed[questions], -torch.inf)
        surest = int(lines.max(dim=-1).values.argmax())
        position = beam.open[surest]
        best = lines[surest].topk(min(width, lines.shape[-1]))
        for log_prob, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if log_prob > -math.inf:
                ids = (*beam.ids[:position], token, *beam.ids[position + 1 :])
                found.append(_Beam(beam.log_prob + log_prob, ids, tuple(p for p in beam.open if p != position)))
    return found


def _allowed(template: Template, codec: TextCodec, vocabulary: int) -> Tensor:
    """For each mask, which pieces may stand there: text only, and a new word only where a space comes before."""
    text = torch.ones(vocabulary, dtype=torch.bool)
    text[[index for index in codec.special_ids if index < vocabulary]] = False
    text[[index for index in codec.blank_ids if index < vocabulary]] = False
    text[len(codec.starts_word) :] = False
    starts = torch.zeros(vocabulary, dtype=torch.bool)
    known = min(vocabulary, len(codec.starts_word))
    starts[:known] = torch.from_numpy(codec.starts_word[:known])
    rows = []
    for number in range(len(template.lengths)):
        begins = template.may_begin(number, codec)
        rows.append(text if begins is None else text & (starts if begins else ~starts))
    return torch.stack(rows)


def _read(beam: _Beam, template: Template, masks: tuple[int, ...], codec: TextCodec) -> Filled:
    pieces = tuple(codec.piece_text(beam.ids[position]) for position in masks)
    text = template.parts[0] + "".join(piece + part for piece, part in zip(pieces, template.parts[1:], strict=True))
    return Filled(text, pieces, math.exp(beam.log_prob))


def _vocabulary(denoiser: Denoiser) -> int:
    return int(denoiser.model.config.vocab_size)
