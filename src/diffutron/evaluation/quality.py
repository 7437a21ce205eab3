"""What generated texts look like, in numbers that mean something only beside those of real text.

Words are compared in lower case and without their suffixes after an apostrophe (text/words.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from diffutron.errors import DataError
from diffutron.evaluation.score import bootstrap_ratio
from diffutron.text import lower_tr, normalise
from diffutron.text.harmony import apostrophe_fault, breaks_harmony
from diffutron.text.spelling import Dictionary, Spelled
from diffutron.text.words import words
from diffutron.tokens.codec import TextCodec

_NORMAL = 1.96
REPEATED = 4
"""words to a run that should not come twice"""


@dataclass(frozen=True)
class Score:
    """A number with its 95 % interval over texts.

    Attributes:
        low, high: None where one text alone has something to count. By bootstrap; what is counted over all texts at
            once by jackknife, for drawing texts again draws some twice, and repetition is what such a number counts.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class NotMeasured:
    """Why there is no number."""

    reason: str


@dataclass(frozen=True)
class TextQuality:
    """What texts look like.

    Attributes:
        words, characters: of a text, on average.
        valid_words: share of words that the dictionary knows.
        unknown_names: share of words that it does not know, but that may be names; what is left is misspelled. Names
            stay in the count of words, else a text of capitals (``KH, HC, BM``) would be valid.
        harmony_breaks: share of words with a front and a back vowel at their end, of those with three vowels or more.
        apostrophe_errors: share of apostrophes after a word that are wrong.
        repeated_4grams: share of runs of four words that occurred before in the same text.
        distinct_1, distinct_2: different words, or pairs of neighbours, for each that there is in all texts. Falls
            with the length and the number of texts: compare equal numbers of equally long texts.
        entropy: of the distribution of words in all texts, in bits. Rises with their length and number.
        judge_nats: surprise of another model, in nats a character: other models cut texts into other tokens.
    """

    num_texts: int
    words: Score | NotMeasured
    characters: Score | NotMeasured
    valid_words: Score | NotMeasured
    unknown_names: Score | NotMeasured
    harmony_breaks: Score | NotMeasured
    apostrophe_errors: Score | NotMeasured
    repeated_4grams: Score | NotMeasured
    distinct_1: Score | NotMeasured
    distinct_2: Score | NotMeasured
    entropy: Score | NotMeasured
    judge_nats: Score | NotMeasured

    def as_dict(self) -> dict[str, int | dict[str, float | str | None]]:
        """For JSON: a score is ``{"value", "low", "high"}``, what is not measured ``{"reason"}``."""
        return asdict(self)


def text_quality(
    texts: Sequence[str], *, dictionary: Dictionary | NotMeasured, judge: Callable[[str], float] | NotMeasured,
    seed: int = 0,
) -> TextQuality:  # fmt: skip
    """Measure texts as they stand.

    Args:
        judge: the nats of a text (:meth:`~diffutron.evaluation.judge.Judge.nats`).
        seed: of the intervals.
    """
    texts = [normalise(text) for text in texts]
    written = [list(words(text)) for text in texts]
    plain = [[lower_tr(word.letters) for word in text] for text in written]
    pairs = [list(pairwise(text)) for text in plain]

    def mean(found: Sequence[float], of: Sequence[float], nothing: str) -> Score | NotMeasured:
        if not sum(of):
            return NotMeasured(nothing)
        if sum(map(bool, of)) == 1:
            return Score(sum(found) / sum(of))
        low, high = bootstrap_ratio(np.asarray(found, dtype=float), np.asarray(of, dtype=float), seed=seed)
        return Score(sum(found) / sum(of), low, high)

    def spelled(kind: Spelled) -> Score | NotMeasured:
        if isinstance(dictionary, NotMeasured):
            return dictionary
        return mean([sum(dictionary.judge(word) == kind for word in text) for text in written], sizes, "no word")

    ones = [1] * len(texts)
    sizes = [len(text) for text in plain]
    harmony = [Counter(breaks_harmony(word) for word in text) for text in plain]
    characters = [len(text) for text in texts]
    return TextQuality(
        num_texts=len(texts),
        words=mean(sizes, ones, "no text"),
        characters=mean(characters, ones, "no text"),
        valid_words=spelled("known"),
        unknown_names=spelled("name"),
        harmony_breaks=mean(
            [each[True] for each in harmony], [each[True] + each[False] for each in harmony], "no word of three vowels"
        ),
        apostrophe_errors=mean(
            [sum(apostrophe_fault(word) is not None for word in text) for text in written],
            [sum(bool(word.apostrophe) for word in text) for text in written], "no apostrophe",
        ),
        repeated_4grams=mean(
            [_repeated(text) for text in plain], [max(0, len(text) - REPEATED + 1) for text in plain],
            f"no text of {REPEATED} words",
        ),
        distinct_1=_distinct(plain, "no word"), distinct_2=_distinct(pairs, "no text of two words"),
        entropy=_entropy(plain),
        judge_nats=judge if isinstance(judge, NotMeasured) else mean(
            [judge(text) for text in texts], characters, "no text"
        ),
    )  # fmt: skip


def _repeated(text: Sequence[str]) -> int:
    """Runs of four words that occurred before."""
    runs = list(zip(*(text[start:] for start in range(REPEATED)), strict=False))
    return len(runs) - len(set(runs))


def _distinct(texts: Sequence[Sequence[object]], nothing: str) -> Score | NotMeasured:
    return _over_all(texts, lambda counts: len(counts) / counts.total(), nothing)


def _entropy(texts: Sequence[Sequence[str]]) -> Score | NotMeasured:
    def entropy(counts: Counter[object]) -> float:
        total = counts.total()
        return sum(count / total * math.log2(total / count) for count in counts.values())

    return _over_all(texts, entropy, "no word")


def _over_all(
    texts: Sequence[Sequence[object]], statistic: Callable[[Counter[object]], float], nothing: str
) -> Score | NotMeasured:
    """A statistic of what all texts hold together, with a jackknife interval: each text left out in turn."""
    counts = Counter(each for text in texts for each in text)
    if not counts:
        return NotMeasured(nothing)
    value = statistic(counts)
    parts = [Counter(text) for text in texts if text]
    if len(parts) == 1:
        return Score(value)
    without = np.array([statistic(counts - part) for part in parts])
    error = math.sqrt((len(parts) - 1) / len(parts) * float(((without - without.mean()) ** 2).sum()))
    return Score(value, value - _NORMAL * error, value + _NORMAL * error)


def equally_long(texts: Sequence[str], reference: Sequence[str], codec: TextCodec) -> list[str]:
    """For each text the beginning of a real one with as many tokens.

    Real texts are taken in their order; those that are too short for their place are passed over.

    Raises:
        DataError: ``reference`` does not hold enough texts that are long enough.
    """
    cuts: list[str] = []
    real = iter(reference)
    for size in map(len, codec.encode_batch(texts)):
        ids = next((ids for ids in map(codec.encode, real) if len(ids) >= size), None)
        if ids is None:
            raise DataError(
                f"the reference has real text for {len(cuts)} of {len(texts)} texts; give more texts, or longer ones"
            )
        cuts.append(codec.decode(ids[:size]))
    return cuts


def without_cut_word(text: str) -> str:
    """``text`` up to its last space, unless it ends with a mark: where a text is cut, its last word is half a word."""
    text = text.rstrip()
    if text and not text[-1].isalnum():
        return text
    return text[: max(text.rfind(" "), text.rfind("\n"), 0)].rstrip()
