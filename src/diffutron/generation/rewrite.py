"""Rewrite a draft: the words that the model finds least likely are hidden and drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffutron.corpus.draws import text_digest
from diffutron.errors import InputError
from diffutron.generation.canvas import Canvas, DenoisingStep
from diffutron.generation.constraints import Regex
from diffutron.generation.generate import Generator, check_seed
from diffutron.generation.sampler import SamplerSettings, denoise
from diffutron.generation.word_rows import WordRows, can_be_asked, diff_of, ids_of, places, replaced, row_with_gaps


@dataclass(frozen=True)
class Change:
    """A word that was replaced, and by how many nats the text became more likely."""

    start: int
    before: str
    after: str
    gain: float


@dataclass(frozen=True)
class Rewritten:
    """A draft and what became of it.

    Attributes:
        changes: in order; ``start`` counts in the draft.
        score_before: log probability of the draft's words, each given the rest, per word. Words that the vocabulary
            cannot write are left as they are, and not counted.
        score_after: of the text's.
    """

    draft: str
    text: str
    changes: tuple[Change, ...]
    score_before: float
    score_after: float

    def as_dict(self) -> dict[str, object]:
        changes = [{"start": each.start, "before": each.before, "after": each.after, "gain": round(each.gain, 4)}
                   for each in self.changes]  # fmt: skip
        return {"text": self.text, "changes": changes, "score_before": self.score_before,
                "score_after": self.score_after}  # fmt: skip

    @property
    def diff(self) -> str:
        """The draft with ``[-what went-]{+what came+}``."""
        return diff_of(self.draft, [(each.start, each.before, each.after) for each in self.changes])


def rewrite(
    generator: Generator, draft: str, settings: SamplerSettings, *, share: float = 0.15, seed: int = 0,
    on_step: Callable[[DenoisingStep], None] = lambda step: None,
) -> Rewritten:  # fmt: skip
    """Redraw the weakest words of a draft; a change that makes the text less likely is not made.

    Args:
        share: of the words, the weakest so many.

    Raises:
        InputError: an empty draft, or one that is longer than the model reads; ``share`` outside (0, 1], or a negative
            seed.
    """
    if not 0 < share <= 1:
        raise InputError(f"the share of words to draw again must be above 0 and at most 1, not {share}")
    check_seed(seed)
    codec = generator.codec
    found = places(draft, codec)
    if not found:
        raise InputError("the draft is empty; give a text to rewrite")
    gaps, words = [each.gap for each in found], [ids_of(each.text, codec, first=each.begins_line) for each in found]
    length = 2 + sum(map(len, gaps)) + sum(map(len, words))
    if length > generator.denoiser.max_positions:
        raise InputError(f"the draft has {length} tokens, but the model reads at most "
                         f"{generator.denoiser.max_positions}; shorten it")  # fmt: skip
    asked = [index for index, word in enumerate(words) if can_be_asked(word, codec)]
    if not asked:
        raise InputError("the draft holds no word that the vocabulary can write; give a text to rewrite")
    rows = WordRows(generator.reader, codec)

    def scores(given: Sequence[tuple[int, ...]]) -> dict[int, float]:
        candidates = [[word] if index in asked else [] for index, word in enumerate(given)]
        found = rows.log_probs(gaps, given, candidates)
        return {index: found[index][0] for index in asked}

    now = scores(words)
    before = sum(now.values())
    weak = sorted(asked, key=lambda index: now[index] / len(words[index]))[: max(1, round(share * len(asked)))]
    changes, current, total = list[Change](), list(words), before
    marked = [codec.marks_first_word or not each.begins_line for each in found]
    drawn = _draw(generator, gaps, words, marked, sorted(weak), settings, (seed, text_digest(draft)), on_step)
    for index in weak:
        tried = [drawn[index] if place == index else word for place, word in enumerate(current)]
        if tried == current:
            continue
        score = sum(scores(tried).values())
        if score > total:
            text = codec.decode(drawn[index]).strip()
            changes.append(Change(found[index].start, found[index].text, text, score - total))
            current, total = tried, score
    changes.sort(key=lambda each: each.start)
    text = replaced(draft, [(each.start, each.before, each.after) for each in changes])
    return Rewritten(draft, text, tuple(changes), before / len(asked), total / len(asked))


def _draw(
    generator: Generator, gaps: Sequence[tuple[int, ...]], words: Sequence[tuple[int, ...]], marked: Sequence[bool],
    weak: Sequence[int], settings: SamplerSettings, key: tuple[int, ...], on_step: Callable[[DenoisingStep], None],
) -> dict[int, tuple[int, ...]]:  # fmt: skip
    """The weak words drawn again together, each a word of as many pieces; some tokenizers do not mark every word."""
    codec = generator.codec
    row, spans = row_with_gaps(gaps, words, {index: len(words[index]) for index in weak}, codec)
    guides = tuple(
        generator.keep((Regex(r"\S+"),), span, begins=True if marked[index] else None) for index, span in spans.items()
    )
    free = tuple(position for span in spans.values() for position in span)
    canvas = generator.guided(Canvas(tuple(row), free, key=key, guides=guides), settings)
    for step in denoise(generator.reader, [canvas], settings, mask_id=codec.mask_id):
        on_step(step)
    return {
        index: words[index] if step.failed else tuple(step.tokens[position] for position in span)
        for index, span in spans.items()
    }
