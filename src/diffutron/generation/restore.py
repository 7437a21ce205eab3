"""Restore a text: marks that were not typed, slips of the finger, shapes that a scanner took for others.

Every word is hidden, and what it may have been is weighed: how likely the model finds it among the words around it, how
frequent its pieces are anyway, whether its vowels agree, whether a dictionary or a lexicon has it, and how likely the
loss was. The weighted sum is a log probability, for the weights are fitted so (scripts/fit_restore.py): it says how
sure a word is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffutron.errors import DataError, InputError
from diffutron.generation.generate import Generator
from diffutron.generation.word_rows import Place, WordRows, can_be_asked, diff_of, ids_of, places, replaced
from diffutron.text import lower_tr, normalise
from diffutron.text.harmony import vowel_clashes
from diffutron.text.variants import marked_variants, misread, num_ambiguous, slips

FAULTS = frozenset({"letters", "typing", "ocr"})
EVIDENCE = ("model", "pieces", "place", "rounding", "dictionary", "lexicon")
"""what speaks for a word: nats of the model, and of its pieces; clashes of vowels; whether the dictionary has it; how
often the lexicon does, as log(1 + count)"""
WEIGHTS: dict[tuple[bool, bool], tuple[float, ...]] = {
    (False, False): (0.52, 0.09, -2.35, -1.78, 0.0, 0.0),
    (True, False): (0.43, 0.08, -1.48, -1.10, 4.68, 0.0),
    (False, True): (0.24, 0.18, -1.14, -0.51, 0.0, 2.35),
    (True, True): (0.21, 0.22, -0.87, -0.19, 3.50, 1.83),
}
"""of each piece of evidence, by whether there is a dictionary, and a lexicon"""
_AROUND = re.compile(r"^\W+|\W+$")
_LOOKED_UP = 64
_SETTLED = 0.98
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
    words: tuple[RestoredWord, ...]

    @property
    def text(self) -> str:
        return replaced(self.before, self._replacements)

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
        return diff_of(self.before, self._replacements)

    @property
    def _replacements(self) -> list[tuple[int, str, str]]:
        return [(word.start, word.before, word.after) for word in self.changes]


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
class Candidates:
    """What a word may have been, in normal form; first, what it is.

    Attributes:
        evidence: [F, E], for each form and piece of evidence.
        cost: [F], nats of the loss that would have made the word of it.
    """

    place: Place
    forms: list[str]
    ids: list[tuple[int, ...]]
    evidence: NDArray[np.float64]
    cost: NDArray[np.float64]
    chosen: int = 0
    confidence: float = 1.0

    @property
    def after(self) -> str:
        """What became of the word; as it was typed, if nothing did."""
        return self.forms[self.chosen] if self.chosen else self.place.text

    @property
    def size(self) -> int:
        """The most tokens that it and what stands before it take."""
        return len(self.place.gap) + max(map(len, self.ids))

    def log_probs(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = self.evidence @ weights + self.cost
        return total - float(np.logaddexp.reduce(total))


class Lexicon:
    """How often words occur in texts; neither capitals nor the marks around a word count.

    Raises:
        DataError: the texts hold no word.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._counts = Counter(self.key(word) for text in texts for word in normalise(text).split())
        if not self._counts:
            raise DataError("the lexicon holds no word; give texts that tell which words are frequent")

    @staticmethod
    def key(word: str) -> str:
        return lower_tr(_AROUND.sub("", word))

    def __getitem__(self, word: str) -> int:
        return self._counts[self.key(word)]


@dataclass(frozen=True)
class Restorer:
    """Restores texts with one model.

    Attributes:
        faults: what may have gone wrong: marks that were not typed (letters), typing, ocr.
        is_well_spelled: a dictionary's word on a word, if there is one.
        lexicon: how often words occur, if that is known.
        confidence: a word is changed only if the change is at least so probable.
        most: candidates of a word that the model is asked about.
        window: tokens in a row; longer texts are restored part by part.
    """

    generator: Generator
    faults: frozenset[str] = frozenset({"letters"})
    confidence: float = 0.9
    is_well_spelled: Callable[[str], bool] | None = None
    lexicon: Lexicon | None = None
    most: int = 8
    window: int = 192

    def __post_init__(self) -> None:
        check_faults(self.faults, self.confidence)

    @property
    def weights(self) -> NDArray[np.float64]:
        return np.array(WEIGHTS[self.is_well_spelled is not None, self.lexicon is not None])

    def restore(self, text: str, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Restored:
        """Restore a text; what stands between words stays, and so does a word that is longer than the model reads or
        has characters that the vocabulary does not have."""
        found = self.candidates(text)
        windows = self.windows(found)
        done, total = 0, sum(map(len, windows))
        for window in windows:
            self.weigh(window)
            done += len(window)
            on_progress(done, total)
        words = tuple(RestoredWord(word.place.start, word.place.text, word.after, word.confidence) for word in found)
        return Restored(text, words)

    def candidates(self, text: str) -> list[Candidates]:
        """What each word may have been; the model is not asked yet."""
        loss = self._loss(text)
        return [self._candidates(place, loss) for place in places(text, self.generator.codec)]

    def _loss(self, text: str) -> float:
        """The share of marks that were lost, from how many there are."""
        bare_letters, marked = num_ambiguous(normalise(text))  # marks that are characters of their own are no loss
        expected = MARKED_SHARE * (bare_letters + marked)
        share = 1 - (marked + 0.02) / (expected + 0.02) if expected else 0.0
        return min(max(share, 0.002), 0.998)

    def _candidates(self, place: Place, loss: float) -> Candidates:
        codec, text = self.generator.codec, normalise(place.text)
        costs = {text: 0.0}
        itself = ids_of(text, codec, first=place.begins_line)
        if not can_be_asked(itself, codec) or len(place.gap) + len(itself) > self._room:
            return Candidates(place, [text], [itself], np.zeros((1, len(EVIDENCE))), np.zeros(1))
        if "letters" in self.faults:
            costs |= {form: added * math.log(loss) for form, added in marked_variants(text)}
        for fault, variants in (("typing", slips), ("ocr", misread)):
            if fault in self.faults:
                for form in variants(text):
                    costs[form] = max(costs.get(form, -math.inf), _SLIP[fault])
        forms = list(costs)
        ids = [ids_of(form, codec, first=place.begins_line) for form in forms]
        cost = np.array(list(costs.values()))
        evidence = np.array([self._evidence(form, each) for form, each in zip(forms, ids, strict=True)])
        if self.is_well_spelled is not None:
            # A dictionary is slow, and a long word can be many.
            for index in self._best(evidence, cost, _LOOKED_UP):
                evidence[index, EVIDENCE.index("dictionary")] = self.is_well_spelled(forms[index])
        kept = [index for index in self._best(evidence, cost, self.most) if can_be_asked(ids[index], codec)]
        return Candidates(
            place, [forms[index] for index in kept], [ids[index] for index in kept], evidence[kept], cost[kept]
        )

    def _best(self, evidence: NDArray[np.float64], cost: NDArray[np.float64], number: int) -> list[int]:
        """The first, and the best of the others."""
        total = evidence @ self.weights + cost
        return [0, *(1 + (-total[1:]).argsort(kind="stable")[: number - 1]).tolist()]

    def _evidence(self, form: str, ids: tuple[int, ...]) -> list[float]:
        """All but the model's and the dictionary's."""
        count = 0 if self.lexicon is None else self.lexicon[form]
        return [0.0, self.generator.codec.log_frequency(ids), *vowel_clashes(form), 0.0, math.log1p(count)]

    @property
    def _room(self) -> int:
        """Tokens of the longest word that the model can be asked about."""
        return self.generator.denoiser.max_positions - 2

    def windows(self, words: Sequence[Candidates]) -> list[list[Candidates]]:
        """The words that are weighed together; one that the model cannot read stands in none."""
        windows, length = list[list[Candidates]](), self.window + 1
        for word in words:
            if word.size > self._room:
                continue
            if length + word.size > min(self.window - 2, self._room):
                windows.append([])
                length = 0
            windows[-1].append(word)
            length += word.size
        return windows

    def weigh(self, words: Sequence[Candidates]) -> None:
        """Ask the model, and of what is not settled then once more, among what the first time found."""
        rows, weights = WordRows(self.generator.reader, self.generator.codec), self.weights
        for settled in (math.inf, math.log(_SETTLED)):
            beliefs = [word.log_probs(weights) for word in words]
            standing = [word.ids[int(belief.argmax())] for word, belief in zip(words, beliefs, strict=True)]
            asked = [
                word.ids if len(word.ids) > 1 and belief.max() < settled else []
                for word, belief in zip(words, beliefs, strict=True)
            ]
            found = rows.log_probs([word.place.gap for word in words], standing, asked)
            for word, log_probs in zip(words, found, strict=True):
                if log_probs:
                    word.evidence[:, 0] = log_probs
        for word in words:
            probability = np.exp(word.log_probs(weights))
            best = int(probability.argmax())
            word.chosen = best if probability[best] >= self.confidence else 0
            word.confidence = float(probability[word.chosen])
