"""The sampler: denoising steps over canvases with fixed and free positions. There is no other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from diffutron.generation.beliefs import Beliefs
from diffutron.generation.canvas import Canvas, DenoisingStep, Guide
from diffutron.generation.policies import ORDERS, Block, Even, OrderName, PaceSettings, RevisionSettings
from diffutron.generation.reader import Look, Reader
from diffutron.generation.repetition import penalise, repeated_ngrams, repeats_ngram
from diffutron.recipe import Settings


class SamplerSettings(Settings):
    """How a canvas is filled."""

    steps: int | None = Field(default=None, ge=1)
    """Denoiser calls; fewer commit several tokens at once. One for each token unless given."""
    block_length: int = Field(default=32, ge=1)
    """Tokens to a block; blocks are filled left to right, positions inside a block in any order."""
    temperature: float = Field(default=1.3, ge=0, le=1000, allow_inf_nan=False)
    """0 takes the most probable token."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw from the k most probable tokens only."""
    top_p: float | None = Field(default=0.9, gt=0, le=1)
    """Draw from the most probable tokens that together reach this probability."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Draw from tokens with at least this share of the most probable one's probability."""
    order: OrderName = "confidence"
    """Which position is committed first."""
    pace: PaceSettings = Even()
    """How many are: an even number, or ``threshold:0.9``, ``factor:1``, ``entropy:0.1`` for as many as are sure."""
    revision: RevisionSettings | None = None
    """Hide committed tokens again: ``cap:0.02``, ``rescale:0.05``, ``loop:0.02`` (ReMDM), ``p2:1``."""
    repetition_penalty: float = Field(default=1.0, ge=1, le=1000, allow_inf_nan=False)
    """Divides the probability of tokens already generated."""
    no_repeat_ngram: int = Field(default=0, ge=0)
    """No run of so many tokens is generated twice; 0 allows it."""
    end_penalty: float = Field(default=0.0, ge=-100, le=100, allow_inf_nan=False)
    """Nats taken from the end of a text wherever it may stand, against texts that end too early; below 0, given."""
    well_formed: float = Field(default=0.0, ge=0, le=100, allow_inf_nan=False)
    """Nats taken from a piece that breaks a Turkish word: wrong harmony, d after p, a capital inside, a non-word."""
    dictionary: Path | None = None
    """For ``well_formed``: a Hunspell dictionary that tells words from non-words; else the order of letters does."""
    guidance: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    """Classifier-free guidance: how far to go beyond what the model says without the prompt; costs a second call."""

    @model_validator(mode="after")
    def _dictionary_is_used(self) -> Self:
        if self.dictionary is not None and self.well_formed == 0:
            raise ValueError("a dictionary is used by well_formed alone; set it above 0 (e.g. 4)")
        return self


@dataclass
class _Row:
    index: int
    canvas: Canvas
    steps: int
    noise: np.random.Generator
    tokens: list[int]
    hidden: list[int]
    rank: dict[int, int]
    """of each free position among them"""
    taken: int = 0
    committed: list[int] = field(default_factory=list)
    window: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    """the free positions of the blocks that the window lies in"""
    failed: str | None = None

    @property
    def done(self) -> bool:
        return not self.hidden or self.failed is not None


def denoise(
    reader: Reader, canvases: Sequence[Canvas], settings: SamplerSettings, *, mask_id: int, end_id: int | None = None
) -> Iterator[DenoisingStep]:
    """Fill every canvas; yields a step for every row and denoiser call.

    A row's result does not depend on the others: its random numbers come from its own key, and its attention ends with
    it. Fixed tokens never change.

    Args:
        end_id: closes a document; once committed, everything to its right is dropped. ``None``: it closes none, and is
            drawn where the reader lets it be.
    """
    denoising = Denoising(reader, mask_id=mask_id)
    for index, canvas in enumerate(canvases):
        denoising.add(index, canvas, settings, end_id=end_id)
    while denoising:
        yield from denoising.step()


class Denoising:
    """Rows that are being filled, each with settings of its own; they may join and leave between two steps.

    Rows of equal settings go through the sampler together, and all through one call of the denoiser.

    Args:
        reader: nobody else may read with it meanwhile.
    """

    def __init__(self, reader: Reader, *, mask_id: int) -> None:
        self.reader, self.mask_id = reader, mask_id
        self._samplers: list[_Sampler] = []
        self._rows: dict[int, tuple[_Sampler, _Row]] = {}
        reader.start()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, index: int, canvas: Canvas, settings: SamplerSettings, *, end_id: int | None = None) -> None:
        """Let a row join; its steps will bear the number ``index``. One with nothing to fill never does."""
        sampler = _Sampler(self.reader, settings, self.mask_id, end_id)
        sampler = next((each for each in self._samplers if each == sampler), sampler)
        row = sampler.start(index, canvas)
        if not row.done:
            self._rows[index] = sampler, row
            if sampler not in self._samplers:
                self._samplers.append(sampler)

    def remove(self, index: int) -> None:
        """Let a row go, whether it is done or not."""
        if self._rows.pop(index, None) is not None:
            self.reader.forget(index)
            self.reader.forget(-1 - index)
        self._samplers = [each for each in self._samplers if any(each is used for used, _ in self._rows.values())]

    def step(self) -> Iterator[DenoisingStep]:
        """One denoiser call; a step for every row. Rows that are done leave."""
        groups = [
            (sampler, [row for used, row in self._rows.values() if used is sampler]) for sampler in self._samplers
        ]
        looks = [sampler.looks(rows) for sampler, rows in groups]
        sizes = [sum(len(look.where) for look in part) for part in looks]
        logits = self.reader.read([look for part in looks for look in part]).split(sizes)
        for (sampler, rows), part in zip(groups, logits, strict=True):
            yield from sampler.advance(rows, part)
            for row in rows:
                if row.done:
                    self.remove(row.index)


@dataclass(frozen=True)
class _Sampler:
    reader: Reader
    settings: SamplerSettings
    mask_id: int
    end_id: int | None

    def start(self, index: int, canvas: Canvas) -> _Row:
        settings, total = self.settings, len(canvas.free)
        steps = settings.steps or total
        if settings.revision is None:
            steps = min(steps, total)  # with nothing hidden again, every call commits a token
        noise = np.random.Generator(np.random.Philox(np.random.SeedSequence(canvas.key)))
        rank = {position: place for place, position in enumerate(canvas.free)}
        return _Row(index, canvas, steps, noise, list(canvas.tokens), list(canvas.free), rank)

    # What a call looks at

    def looks(self, rows: Sequence[_Row]) -> list[Look]:
        """At each row's window, and at its committed positions if the revision reads them; with guidance once more,
        without what was given."""
        looks, unprompted = list[Look](), list[Look]()
        for row in rows:
            self._look(row)
            order = sorted([*row.window, *self._read_again(row)])
            looks.append(Look(row.index, row.tokens, order, row.block))
            if self.settings.guidance:
                free = set(row.canvas.free)
                bare = [each if place in free or place == 0 else self.mask_id for place, each in enumerate(row.tokens)]
                unprompted.append(Look(-1 - row.index, bare, order, row.block))
        return [*looks, *unprompted]

    def _look(self, row: _Row) -> None:
        """Choose the hidden positions that may be committed now: the leftmost blocks that hold enough of them."""
        length, needed = self.settings.block_length, self._target(row) - self._standing(row)
        row.window = []
        for position in row.hidden:
            new_block = bool(row.window) and row.rank[position] // length != row.rank[row.window[-1]] // length
            if new_block and len(row.window) >= needed:
                break
            row.window.append(position)
        first, last = row.rank[row.window[0]] // length, row.rank[row.window[-1]] // length
        size = len(row.tokens)
        row.block = [each for each in row.canvas.free[first * length : (last + 1) * length] if each < size]

    def _target(self, row: _Row) -> int:
        """How many tokens are to stand after this call: an even pace at which ``steps`` calls commit all."""
        return self._shown_after(row, row.taken + 1)

    def _shown_after(self, row: _Row, calls: int) -> int:
        total, revision = len(row.canvas.free), self.settings.revision
        if revision is None or calls >= row.steps:
            return min(calls, row.steps) * total // row.steps
        # The revision's schedule holds inside each block.
        block, time = self._block_time(row, calls)
        start = block * self.settings.block_length
        return start + int(min(self.settings.block_length, total - start) * revision.shown(time))

    def _block_time(self, row: _Row, calls: int) -> tuple[int, float]:
        """After so many calls, the number of the active block, and which share of its calls is over."""
        length, total = self.settings.block_length, len(row.canvas.free)
        progress = calls * total / row.steps
        block = min(math.ceil(progress / length), -(-total // length)) - 1
        return block, (progress - block * length) / min(length, total - block * length)

    @staticmethod
    def _standing(row: _Row) -> int:
        return len(row.canvas.free) - len(row.hidden)

    # What it does with what it sees

    @torch.no_grad()
    def advance(self, rows: list[_Row], logits: Tensor) -> list[DenoisingStep]:
        """A step for every row, given the logits at what :meth:`looks` said."""
        logits = self._in_order(rows, logits)
        lines = [len(row.window) for row in rows]
        standing, read = [self._committed(row) for row in rows], [self._read_again(row) for row in rows]
        parts = logits.split([count + len(more) for count, more in zip(lines, read, strict=True)])
        numbers = [row.noise.random((3, len(row.canvas.free))) for row in rows]
        again = list[list[float]]()
        for row, part, count, more in zip(rows, parts, lines, read, strict=True):
            again.append(self._log_probs(part[count:], [row.tokens[position] for position in more]))
            self._apply_rules(row, part[:count])
        logits = torch.cat([part[:count] for part, count in zip(parts, lines, strict=True)]) if any(read) else logits
        beliefs, settings = Beliefs(logits), self.settings
        is_open = beliefs.peak > -torch.inf
        if not is_open.all():
            logits[~is_open] = 0.0
            beliefs = Beliefs(logits)
        u = torch.from_numpy(np.concatenate(
            [each[:, [row.rank[position] for position in row.window]] for row, each in zip(rows, numbers, strict=True)],
            axis=1,
        )).to(logits.device)  # fmt: skip
        tokens, closeness = beliefs.choose(
            u[0], temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p, min_p=settings.min_p
        )
        priority = ORDERS[settings.order].priority(beliefs, tokens, u[1])
        confidence = beliefs.log_prob(tokens)
        entropy = beliefs.entropy if settings.pace.needs_entropy else torch.zeros_like(confidence)
        ids = tokens if self.reader.columns is None else self.reader.columns.to(tokens.device)[tokens]
        found = (ids, confidence, priority, entropy, closeness, is_open)
        columns = [each.tolist() for each in found]
        steps, start = list[DenoisingStep](), 0
        for row, count, more, scores, each in zip(rows, lines, standing, again, numbers, strict=True):
            lot = [column[start : start + count] for column in columns]
            start += count
            u_again = [float(each[2, row.rank[position]]) for position in more]
            steps.append(self._commit(row, *lot, u=u_again, standing=more, scores=scores))
        return steps

    def _in_order(self, rows: list[_Row], logits: Tensor) -> Tensor:
        """Guided, and in each row the window's first, then those of committed positions."""
        if self.settings.guidance:
            logits, bare_logits = logits.chunk(2)
            pushed = bare_logits + (1 + self.settings.guidance) * (logits - bare_logits)
            logits = torch.where(logits.isneginf(), logits, pushed)
        places = list[int]()
        start = 0
        for row in rows:
            wanted = [*row.window, *self._read_again(row)]
            line = {position: start + place for place, position in enumerate(sorted(wanted))}
            places += [line[position] for position in wanted]
            start += len(wanted)
        return logits if places == list(range(start)) else logits[places]

    def _committed(self, row: _Row) -> list[int]:
        """The committed positions of the active block, if they may be hidden again."""
        if self.settings.revision is None:
            return []
        hidden = set(row.hidden)
        return [position for position in row.block if position not in hidden]

    def _read_again(self, row: _Row) -> list[int]:
        """Those of them whose logits the revision judges by: all, or none."""
        revision = self.settings.revision
        return self._committed(row) if revision is not None and revision.reads_committed else []

    def _log_probs(self, logits: Tensor, ids: list[int]) -> list[float]:
        if not ids:
            return []
        found: list[float] = Beliefs(logits).log_prob(self._columns(ids).to(logits.device)).tolist()
        return found

    def _columns(self, ids: Sequence[int]) -> Tensor:
        """Where the ids' logits are; ids that have none are left out."""
        wanted = torch.tensor(list(ids), dtype=torch.long)
        columns = self.reader.columns
        if columns is None:
            return wanted
        columns = columns.cpu()
        places = torch.searchsorted(columns, wanted).clamp(max=len(columns) - 1)
        return places[columns[places] == wanted]

    def _apply_rules(self, row: _Row, logits: Tensor) -> None:
        """Repetition control, the rules for the end token, and the row's guides."""
        settings, first_free = self.settings, row.canvas.free[0]
        if settings.repetition_penalty != 1.0 and row.committed:
            penalise(logits, self._columns([row.tokens[each] for each in row.committed]), settings.repetition_penalty)
        if self.end_id is not None:
            # A completion holds at least one token, and a text does not end before what is given.
            last_fixed = max(set(range(len(row.canvas.tokens))) - set(row.canvas.free), default=-1)
            early = [line for line, each in enumerate(row.window) if each == first_free or each < last_fixed]
            for column in self._columns([self.end_id]).tolist():
                logits[:, column] -= settings.end_penalty
                logits[early, column] = -torch.inf
        for guide in row.canvas.guides:
            guide.adjust(logits, self._known(row), row.window)
        if settings.no_repeat_ngram:
            self._forbid_repeats(row, logits)

    def _forbid_repeats(self, row: _Row, logits: Tensor) -> None:
        """Where guides leave nothing but repeats, repeats are allowed."""
        first_free = row.canvas.free[0]
        positions = [position - first_free for position in row.window]
        banned = repeated_ngrams(self._generated(row), positions, n=self.settings.no_repeat_ngram)
        for line, repeating in zip(logits, banned, strict=True):
            if repeating:
                columns = self._columns(sorted(repeating)).to(logits.device)
                before = line[columns]
                line[columns] = -torch.inf
                if row.canvas.guides and line.amax() == -torch.inf:
                    line[columns] = before

    def _repeats(self, row: _Row, position: int, token: int) -> bool:
        if not self.settings.no_repeat_ngram:
            return False
        place = position - row.canvas.free[0]
        generated = self._generated(row)
        generated[place] = token
        return repeats_ngram(generated, place, n=self.settings.no_repeat_ngram)

    def _generated(self, row: _Row) -> list[int | None]:
        return [None if token == self.mask_id else token for token in row.tokens[row.canvas.free[0] :]]

    def _known(self, row: _Row) -> list[int | None]:
        hidden = set(row.hidden)
        return [None if place in hidden else token for place, token in enumerate(row.tokens)]

    def _commit(
        self, row: _Row, ids: list[int], confidence: list[float], priority: list[float], entropy: list[float],
        closeness: list[float], is_open: list[bool], *, u: list[float], standing: list[int], scores: list[float],
    ) -> DenoisingStep:  # fmt: skip
        """Hide again what the revision says, then commit the best."""
        order = sorted((line for line in range(len(ids)) if is_open[line]), key=lambda line: -priority[line])
        target, row.taken = self._target(row), row.taken + 1
        again = self._hide_again(row, standing, scores, u, [confidence[line] for line in order], target)
        at_least = target - self._standing(row)
        if self.settings.revision is None or row.taken >= row.steps:
            at_least = max(at_least, 1)
        probability = [float(np.exp(confidence[line])) for line in order]
        count = self.settings.pace.count(probability, [entropy[line] for line in order], at_least)
        taken, closest = list[int](), float("inf")
        for line in order:
            if len(taken) >= count:
                closest = min(closest, priority[taken[-1]] - priority[line]) if taken else closest
                break
            position = row.window[line]
            # The first was weighed against the row as it stands; the others, before the first stood in it.
            known = self._known(row) if row.canvas.guides and taken else []
            if taken and not all(guide.admits(known, position, ids[line]) for guide in row.canvas.guides):
                continue
            if taken and self._repeats(row, position, ids[line]):
                continue
            row.tokens[position] = ids[line]
            row.hidden.remove(position)
            row.committed.append(position)
            taken.append(line)
            closest = min(closest, closeness[line])
        if not order:
            row.failed = "no token is left that the constraints allow"
        self._drop_after_end(row)
        kept = {row.window[line]: float(np.exp(confidence[line])) for line in taken}
        kept = {position: value for position, value in kept.items() if position < len(row.tokens)}
        return DenoisingStep(
            row=row.index, step=row.taken, tokens=tuple(row.tokens), committed=tuple(kept),
            confidence=tuple(kept.values()), closest=closest, done=row.done, hidden_again=tuple(again),
            failed=row.failed,
        )  # fmt: skip

    def _hide_again(
        self, row: _Row, standing: list[int], scores: list[float], u: list[float], candidates: list[float], target: int
    ) -> list[int]:
        revision = self.settings.revision
        if revision is None or row.taken >= row.steps or not standing:
            return []
        before_block = row.rank[row.block[0]]
        keep = max(0, target - before_block)  # a pace may finish the blocks before ahead of the schedule
        block = Block(
            scores, u, candidates, before=len(standing) / len(row.block), after=min(1.0, keep / len(row.block)),
            keep=keep, time=self._block_time(row, row.taken)[1],
        )  # fmt: skip
        # What stood after the end is gone for good, so the end stays too.
        again = [
            position
            for position, hides in zip(standing, revision.hide(block), strict=True)
            if hides and row.tokens[position] != self.end_id
        ]
        for position in again:
            row.tokens[position] = self.mask_id
        row.hidden = sorted({*row.hidden, *again})
        row.committed = [position for position in row.committed if position not in set(again)]
        return again

    def _drop_after_end(self, row: _Row) -> None:
        ends = [position for position in row.committed if row.tokens[position] == self.end_id]
        if self.end_id is None or not ends:
            return
        end = min(ends)
        row.tokens = row.tokens[: end + 1]
        row.hidden = [position for position in row.hidden if position < end]
        row.committed = [position for position in row.committed if position <= end]


__all__ = ["Canvas", "Denoising", "DenoisingStep", "Guide", "SamplerSettings", "denoise"]
