"""Fill masks jointly: several masks are one question, since the word chosen for one changes the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffutron.errors import InputError
from diffutron.generation.template import MASK, Template, check_length, parse_template
from diffutron.model import Denoiser
from diffutron.tokens.codec import TextCodec

MAX_MASKS = 64
"""more of them are no question of the best way to fill all, but a text to be generated"""
MAX_PIECES = 16
"""of a word; each length is searched by itself"""
_CALL_TOKENS = 4096
"""tokens in one call of the model"""
_CALL_LOGITS = 256
"""rows of logits of one call, which take 0.2 GB as float64 over 100,000 pieces"""


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


def fill(
    denoiser: Denoiser, codec: TextCodec, text: str, *, top_k: int = 5, beams: int = 16,
    targets: Sequence[str] | None = None, max_pieces: int = 1, on_call: Callable[[], None] = lambda: None,
) -> list[Filled]:  # fmt: skip
    """The most probable ways to fill every ``[MASK]`` in ``text``, best first.

    A beam search over fills: at each step a beam fills its most certain mask, so sure masks guide unsure ones. With one
    mask this is the plain ranking of the vocabulary.

    Args:
        targets: rank these words for the text's one mask, of however many pieces, and nothing else.
        max_pieces: fill the text's one mask with whole words of up to so many pieces. The score of a word is its
            probability among those of its length; lengths count as equally likely.
        on_call: called after every call of the model.

    Raises:
        InputError: no mask or too many, too many tokens, ``top_k`` below 1, or several masks where one is wanted.
    """
    if top_k < 1:
        raise InputError(f"--top-k must be at least 1, not {top_k}")
    if not 1 <= max_pieces <= MAX_PIECES:
        raise InputError(f"a word has 1 to {MAX_PIECES} pieces, not {max_pieces}")
    template = parse_template(text, gap=MASK)
    if len(template.lengths) > MAX_MASKS:
        raise InputError(
            f"the text has {len(template.lengths)} masks; fill takes at most {MAX_MASKS} together, infill takes more"
        )
    search = _Search(denoiser, codec, template, max(beams, top_k), on_call)
    if targets is None and max_pieces == 1:
        return search.pieces()[:top_k]
    if len(template.lengths) > 1:
        raise InputError(f"targets and whole words are for a text with one [MASK], not {len(template.lengths)}")
    found = search.targets(targets) if targets is not None else search.words(max_pieces)
    return sorted(found, key=lambda way: -way.score)[:top_k]


@dataclass(frozen=True)
class _Search:
    denoiser: Denoiser
    codec: TextCodec
    template: Template
    width: int
    on_call: Callable[[], None]

    def pieces(self) -> list[Filled]:
        """A piece for each mask."""
        return self._ways([1] * len(self.template.lengths), _allowed(self.template, self.codec, self._vocabulary))

    def words(self, max_pieces: int) -> list[Filled]:
        """Words of one to so many pieces: the first begins a word, the others are letters that continue it."""
        first = _allowed(self.template, self.codec, self._vocabulary)
        letters = torch.zeros(self._vocabulary, dtype=torch.bool)
        for index, text in enumerate(self.codec.piece_texts[: self._vocabulary]):
            letters[index] = text.isalpha() and not self.codec.starts_word[index]
        letters &= _text_pieces(self.codec, self._vocabulary)
        ways = list[Filled]()
        for length in range(1, max_pieces + 1):
            ways += self._ways([length], torch.cat([first, letters.expand(length - 1, -1)]))
        return ways

    def targets(self, words: Sequence[str]) -> list[Filled]:
        if isinstance(words, str):
            raise InputError(f"targets is a list of words, not {words!r}")
        ways = list[Filled]()
        words = list(dict.fromkeys(word.strip() for word in words if word.strip()))
        if not words:
            raise InputError("there is no target; give the words to rank")
        for word in words:
            if len(word.split()) > 1:
                raise InputError(f"a target is one word, not {word!r}; infill fills gaps of several")
            begins = self.template.may_begin(0, self.codec)
            ids = self.codec.encode(word) if begins is None else self.codec.encode_inside(" " * begins + word)
            if not ids or self.codec.unk_id in ids:
                raise InputError(f"the vocabulary cannot spell the target {word!r}")
            only = torch.zeros(len(ids), self._vocabulary, dtype=torch.bool)
            only[range(len(ids)), ids] = True
            ways += self._ways([len(ids)], only)
        return ways

    def _ways(self, lengths: list[int], allowed: Tensor) -> list[Filled]:
        ids, gaps = self.template.row(self.codec, lengths)
        check_length(len(ids), self.denoiser.max_positions)
        masks = tuple(position for gap in gaps for position in gap)
        front = [_Beam(0.0, ids, masks)]
        for num_open in range(len(masks), 0, -1):
            # Two orders may reach one fill; the better way to it stays.
            best: dict[tuple[int, ...], _Beam] = {}
            rows = max(1, min(_CALL_TOKENS // len(ids), _CALL_LOGITS // num_open))
            for start in range(0, len(front), rows):
                for beam in _expand(self.denoiser, front[start : start + rows], masks, allowed, self.width):
                    if beam.ids not in best or beam.log_prob > best[beam.ids].log_prob:
                        best[beam.ids] = beam
                self.on_call()
            front = sorted(best.values(), key=lambda beam: (-beam.log_prob, beam.ids))[: self.width]
        return [self._read(beam, gaps) for beam in front]

    def _read(self, beam: _Beam, gaps: Sequence[Sequence[int]]) -> Filled:
        codec, parts = self.codec, self.template.parts
        pieces = tuple(codec.piece_text(beam.ids[position]) for gap in gaps for position in gap)
        fills = ["".join(codec.piece_text(beam.ids[position]) for position in gap) for gap in gaps]
        text = parts[0] + "".join(fill + part for fill, part in zip(fills, parts[1:], strict=True))
        return Filled(text, pieces, math.exp(beam.log_prob))

    @property
    def _vocabulary(self) -> int:
        return int(self.denoiser.model.config.vocab_size)


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
    text = _text_pieces(codec, vocabulary)
    starts = torch.from_numpy(codec.begins_word(vocabulary))
    rows = []
    for number in range(len(template.lengths)):
        begins = template.may_begin(number, codec)
        rows.append(text if begins is None else text & (starts if begins else ~starts))
    return torch.stack(rows)


def _text_pieces(codec: TextCodec, vocabulary: int) -> Tensor:
    text = torch.ones(vocabulary, dtype=torch.bool)
    text[[index for index in codec.special_ids if index < vocabulary]] = False
    text[[index for index in codec.blank_ids if index < vocabulary]] = False
    text[len(codec.starts_word) :] = False
    return text
