"""Restore a text: marks that were not typed, slips of the finger, shapes that a scanner took for others.

Every word is hidden, and what it may have been is weighed: how likely the model finds it among the words around it, how
frequent its pieces are anyway, and how likely the loss was. The sum is a probability (the weights are fitted so), which
says how sure a word is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffutron.errors import InputError
from diffutron.generation.generate import Generator
from diffutron.generation.rewrite import apply
from diffutron.generation.word_rows import Place, WordRows, ids_of, places
from diffutron.text.variants import marked_variants, misread, num_ambiguous, slips

FAULTS = frozenset({"letters", "typing", "ocr"})
MODEL_WEIGHT, PIECE_WEIGHT = 0.5, 0.5
MARKED_SHARE = 0.33
"""of the letters that can have a mark, as many have one in Turkish text"""
_SLIP = {"typing": math.log(0.01 / 300), "ocr": math.log(0.01 / 10)}
"""log probability of one certain fault in a word"""


@dataclass(frozen=True)
class RestoredWord:
    """A word, what it became, and how probable that is. ``start`` counts in the text as it was."""

    start: int
    before: str
    after: str
    confidence: float


@dataclass(frozen=True)
class Restored:
    """A text and what became of it, word by word."""

    before: str
    text: str
    words: tuple[RestoredWord, ...]

    @property
    def changes(self) -> list[RestoredWord]:
        return [word for word in self.words if word.after != word.before]

    def as_dict(self) -> dict[str, object]:
        return {
            "text": self.text,
            "words": [
                {"start": word.start, "before": word.before, "after": word.after,
                 "confidence": round(word.confidence, 4)}
                for word in self.words
            ],
        }  # fmt: skip

    @property
    def diff(self) -> str:
        """The text with ``[-what went-]{+what came+}``."""
        shown = [(word.start, word.before, f"[-{word.before}-]{{+{word.after}+}}") for word in self.changes]
        return apply(self.before, shown)


def check_faults(faults: Collection[str], confidence: float) -> None:
    """Raises:
    InputError: an unknown fault, or a confidence that is none.
    """
    unknown = sorted(set(faults) - FAULTS)
    if unknown or not faults:
        raise InputError(f"faults are {', '.join(sorted(FAULTS))}, not {', '.join(unknown) or 'nothing'}")
    if not 0 <= confidence < 1:
        raise InputError(f"the confidence must be at least 0 and below 1, not {confidence}")


@dataclass
class _Word:
    place: Place
    forms: list[str]
    ids: list[tuple[int, ...]]
    prior: list[float]
    """what does not hang on the context: pieces, and the loss"""
    chosen: int = 0
    confidence: float = 1.0
    total: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Restorer:
    """Restores texts with one model.

    Attributes:
        faults: what may have gone wrong: marks that were not typed (letters), typing, ocr.
        confidence: a word is changed only if the change is at least so probable.
        most: candidates of a word that the model is asked about.
        window: tokens in a row; longer texts are restored part by part.
    """

    generator: Generator
    faults: frozenset[str] = frozenset({"letters"})
    confidence: float = 0.9
    most: int = 8
    window: int = 192

    def __post_init__(self) -> None:
        check_faults(self.faults, self.confidence)

    def restore(self, text: str, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Restored:
        """Restore a text; what stands between words stays."""
        found = [self._word(place, number == 0, self._loss(text)) for number, place in
                 enumerate(places(text, self.generator.codec))]  # fmt: skip
        done = 0
        for window in self._windows(found):
            self._weigh(window)
            done += len(window)
            on_progress(done, len(found))
        words = tuple(
            RestoredWord(word.place.start, word.place.text, word.forms[word.chosen], word.confidence) for word in found
        )
        changed = [(word.start, word.before, word.after) for word in words if word.after != word.before]
        return Restored(text, apply(text, changed), words)

    def _loss(self, text: str) -> float:
        """The share of marks that were lost, from how many there are."""
        bare_letters, marked = num_ambiguous(text)
        expected = MARKED_SHARE * (bare_letters + marked)
        share = 1 - (marked + 0.02) / (expected + 0.02) if expected else 0.0
        return min(max(share, 0.002), 0.998)

    def _word(self, place: Place, first: bool, loss: float) -> _Word:
        codec = self.generator.codec
        costs = {place.text: 0.0}
        if "letters" in self.faults:
            costs |= {form: added * math.log(loss) for form, added in marked_variants(place.text)}
        for fault, variants in (("typing", slips), ("ocr", misread)):
            if fault in self.faults:
                for form in variants(place.text):
                    costs[form] = max(costs.get(form, -math.inf), _SLIP[fault])
        forms = list(costs)
        ids = [ids_of(form, codec, first=first) for form in forms]
        prior = [PIECE_WEIGHT * codec.log_frequency(each) + costs[form]
                 for form, each in zip(forms, ids, strict=True)]  # fmt: skip
        best = sorted(range(1, len(forms)), key=lambda index: -prior[index])[: self.most - 1]
        kept = [0, *(index for index in best if codec.unk_id not in ids[index])]
        return _Word(place, [forms[index] for index in kept], [ids[index] for index in kept],
                     [prior[index] for index in kept])  # fmt: skip

    def _windows(self, words: Sequence[_Word]) -> list[list[_Word]]:
        windows, length = list[list[_Word]](), self.window + 1
        for word in words:
            size = len(word.place.gap) + max(map(len, word.ids))
            if length + size > min(self.window, self.generator.denoiser.max_positions) - 2:
                windows.append([])
                length = 0
            windows[-1].append(word)
            length += size
        return windows

    def _weigh(self, words: Sequence[_Word]) -> None:
        """Twice: the second time among what the first time found."""
        rows = WordRows(self.generator.reader, self.generator.codec)
        guess = [int(np.argmax(word.prior)) for word in words]
        for _ in range(2):
            standing = [word.ids[index] for word, index in zip(words, guess, strict=True)]
            asked = [word.ids if len(word.ids) > 1 else [] for word in words]
            found = rows.log_probs([word.place.gap for word in words], standing, asked)
            for number, (word, log_probs) in enumerate(zip(words, found, strict=True)):
                if log_probs:
                    word.total = [MODEL_WEIGHT * each + prior
                                  for each, prior in zip(log_probs, word.prior, strict=True)]  # fmt: skip
                    guess[number] = int(np.argmax(word.total))
        for word, index in zip(words, guess, strict=True):
            if word.total:
                weights = np.exp(np.array(word.total) - max(word.total))
                probability = weights / weights.sum()
                sure = index == 0 or probability[index] >= self.confidence
                word.chosen = index if sure else 0
                word.confidence = float(probability[word.chosen])
