"""Fill gaps of any length in a text, all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from diffutron.corpus.draws import text_digest
from diffutron.errors import InputError
from diffutron.generation.beliefs import Beliefs
from diffutron.generation.canvas import Canvas, DenoisingStep
from diffutron.generation.constraints import Constraint
from diffutron.generation.generate import Generator, check_constraints, check_num_samples, check_seed
from diffutron.generation.reader import Look
from diffutron.generation.sampler import SamplerSettings, denoise
from diffutron.generation.span_guide import SpanGuide
from diffutron.generation.template import Row, Template, check_length, parse_template

MAX_GAP = 16
"""the longest that a gap of unknown length can be, in pieces"""
USUAL_GAP = 3
"""what stands for a gap whose length is still open while another is chosen"""


INFILL_SAMPLER: dict[str, Any] = {"temperature": 0.0}
"""where the sampler's own defaults do not serve a gap: it is to hold what belongs there, not what might"""


@dataclass(frozen=True)
class Infilling:
    """A text whose gaps are filled.

    Attributes:
        text: as typed, with each gap replaced.
        gaps: what stands in each.
        lengths: pieces in each.
        num_steps: denoiser calls.
        failed: why it could not be finished.
    """

    text: str
    gaps: tuple[str, ...]
    lengths: tuple[int, ...]
    num_steps: int
    seed: int
    failed: str | None = None

    def as_dict(self) -> dict[str, object]:
        told = {
            "text": self.text, "gaps": list(self.gaps), "lengths": list(self.lengths), "num_steps": self.num_steps,
            "seed": self.seed,
        }  # fmt: skip
        return told if self.failed is None else {**told, "failed": self.failed}


@dataclass(frozen=True)
class Infiller:
    """Gaps of one text; ``constraints`` by the number of the gap, from 1.

    Args:
        given: the text's gaps, where it is not to be read for ``[MASK]``.
    """

    generator: Generator
    text: str
    constraints: Mapping[int, Sequence[Constraint]]
    seed: int = 0
    max_gap: int = MAX_GAP
    given: Template | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for number, constraints in self.constraints.items():
            if not isinstance(number, int):
                raise InputError(f"a gap's constraints stand under its number, as 1, not under {number!r}")
            check_constraints(constraints)

    def fill(
        self, settings: SamplerSettings, *, num_samples: int = 1,
        on_step: Callable[[DenoisingStep], None] = lambda step: None,
    ) -> list[Infilling]:  # fmt: skip
        """Samples, in order.

        Raises:
            InputError: the text has no gap or is too long, no gap may be, or a constraint cannot be kept.
        """
        check_num_samples(num_samples)
        if self.max_gap < 1:
            raise InputError(f"the longest gap must be at least 1, not {self.max_gap}")
        lengths = self.lengths()
        last: dict[int, DenoisingStep] = {}
        for step in self.steps(settings, lengths, num_samples=num_samples):
            on_step(step)
            last[step.row] = step
        return [self.read(lengths, last[number]) for number in range(num_samples)]

    def steps(
        self, settings: SamplerSettings, lengths: Sequence[int], *, num_samples: int = 1
    ) -> Iterator[DenoisingStep]:
        found = [self.canvas(lengths, sample) for sample in range(num_samples)]
        canvases = [self.generator.guided(canvas, settings) for canvas in found]
        yield from denoise(self.generator.reader, canvases, settings, mask_id=self.generator.codec.mask_id)

    def lengths(self, on_look: Callable[[], None] = lambda: None) -> tuple[int, ...]:
        """How many pieces each gap gets; open ones are chosen one after another.

        A gap is tried at every length that its constraints allow, and the one at which the model is surest of what
        stands there, before anything does, is taken (as in CAL, arXiv:2602.00476): the lowest mean entropy.

        Args:
            on_look: called after every call of the model.

        Raises:
            InputError: no length suits a gap.
        """
        asked = self.template.lengths
        self._row([length or 1 for length in asked])
        found = [length if length is not None else USUAL_GAP for length in asked]
        for number, length in enumerate(asked):
            if length is None:
                found[number] = self._best_length(found, number, on_look)
        return tuple(found)

    def _row(self, lengths: Sequence[int]) -> Row:
        """
        Raises:
            InputError: the text is too long.
        """
        most = self.generator.denoiser.max_positions
        check_length(sum(lengths) + 2, most)  # before a row of any length is made
        row = self.template.row(self.generator.codec, lengths)
        check_length(len(row.ids), most)
        return row

    def _best_length(self, lengths: Sequence[int], number: int, on_look: Callable[[], None]) -> int:
        codec, reader = self.generator.codec, self.generator.reader
        tried, looks = list[int](), list[Look]()
        for length in range(1, self.max_gap + 1):
            row = self.template.row(codec, [*lengths[:number], length, *lengths[number + 1 :]])
            fits = len(row.ids) <= self.generator.denoiser.max_positions
            if fits and self._can_be(number, length):
                tried.append(length)
                looks.append(Look(len(looks), row.ids, row.gaps[number], row.gaps[number]))
        if not looks:
            raise InputError(
                f"no length up to {self.max_gap} tokens suits gap {number + 1}: its constraints allow none, or the "
                "text is too long"
            )
        entropies = list[float]()
        for look in looks:
            entropies.append(float(Beliefs(reader.read([look])).entropy.mean()))
            reader.forget(look.row)
            on_look()
        return tried[int(np.argmin(entropies))]

    def _can_be(self, number: int, length: int) -> bool:
        generator = self.generator
        begins = generator.beginnings(self.template.may_begin(number, generator.codec))
        return generator.pieces(self.constraints.get(number + 1, ())).fits(length, begins=begins)

    def _guide(self, number: int, where: Sequence[int]) -> SpanGuide:
        wanted = self.constraints.get(number + 1, ())
        return self.generator.keep(wanted, where, begins=self.template.may_begin(number, self.generator.codec))

    def canvas(self, lengths: Sequence[int], sample: int) -> Canvas:
        """
        Raises:
            InputError: the text is too long, or a constraint cannot be kept.
        """
        row = self._row(lengths)
        guides = tuple(self._guide(number, where) for number, where in enumerate(row.gaps))
        free = tuple(sorted(position for gap in row.gaps for position in gap))
        return Canvas(row.ids, free, key=(self.seed, text_digest(self.text), sample), guides=guides)

    def build(self) -> None:
        """Make now what keeps the constraints, which takes time and does not need the model.

        Raises:
            InputError: a constraint cannot be kept, or is of no gap of the text.
        """
        for number in range(len(self.template.lengths)):
            self.generator.pieces(self.constraints.get(number + 1, ()))

    @cached_property
    def template(self) -> Template:
        template = self.given or parse_template(self.text)
        unknown = [number for number in self.constraints if not 1 <= number <= len(template.lengths)]
        if unknown:
            raise InputError(f"there is no gap {unknown[0]}: the text has {len(template.lengths)}")
        return template

    def read(self, lengths: Sequence[int], step: DenoisingStep) -> Infilling:
        codec, template = self.generator.codec, self.template
        row = template.row(codec, lengths)
        gaps, text = list[str](), template.parts[0]
        for number, where in enumerate(row.gaps):
            before = [token for token in step.tokens[: where[0]] if token not in codec.special_ids]
            new = codec.decode_after(before, [step.tokens[position] for position in where])
            gaps.append(new.strip(" "))
            text += gaps[-1] + template.parts[number + 1]
        return Infilling(text, tuple(gaps), tuple(lengths), step.step, self.seed, step.failed)
