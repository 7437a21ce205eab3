"""Answers of an instruction-tuned model beside those that were wanted, and instructions that a program can check."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from diffutron.corpus.conversations import Conversation, Turn
from diffutron.corpus.language import language_of
from diffutron.errors import DataError
from diffutron.evaluation.score import Difference, paired_difference, rate_interval
from diffutron.generation.chat import Chat, Reply
from diffutron.generation.sampler import SamplerSettings
from diffutron.recipe import Settings
from diffutron.text import lower_tr, normalise

NGRAM, BETA = 6, 2
"""chrF: runs of up to so many characters, and how much more recall counts than precision"""
_TAG = re.compile(r"\[/?(?:Question|Answer|SYS)\]|<[^<>\s]{1,20}>|(?:Soru|Yanıt|Yönerge):")
_MINUS, _POINT = "\u2212", "\u22c5"
"""signs, not punctuation, for what belongs to a number"""
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")


@dataclass(frozen=True)
class Rate:
    """A mean over ``num`` answers with its 95 % interval, for which whole groups, ``num_groups``, are drawn again.

    The bounds are not-a-number where there is one group.
    """

    value: float
    low: float
    high: float
    num: int
    num_groups: int


@dataclass(frozen=True)
class AnswerScores:
    """How good answers are.

    Attributes:
        exact: equal to the wanted one, but for case, punctuation and blanks.
        f1: of words, as in SQuAD.
        chrf: see :func:`chrf`.
        ended: that the model ended itself.
        tagged: that hold a template's tag.
        unread: questions that did not fit into the context; their answers are empty, and count.
        each: the values of each answer, by the name of the score, for comparisons.
        groups: the group of each answer; answers about one passage rise and fall together.
    """

    exact: Rate
    f1: Rate
    chrf: Rate
    ended: Rate
    tagged: Rate
    unread: int
    each: dict[str, list[float]]
    groups: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**{name: asdict(getattr(self, name)) for name in MEASURES}, "unread": self.unread}


MEASURES = ("exact", "f1", "chrf", "ended", "tagged")


def asked(conversations: Sequence[Conversation]) -> tuple[list[tuple[Turn, ...]], list[str]]:
    """Every conversation up to its last answer, and that answer."""
    return [each.turns[:-1] for each in conversations], [each.turns[-1].text for each in conversations]


def reply_to(
    chat: Chat, questions: Sequence[Sequence[Turn]], settings: SamplerSettings, *, max_new_tokens: int, seed: int,
    batch: int = 16, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Reply]:  # fmt: skip
    """Answers to all questions, a few at a time; a question that does not fit into the context gets an empty one,
    whose ``finish_reason`` is "failed"."""
    replies = [Reply("", "failed", 0, seed) for _ in questions]
    fitting = [number for number, turns in enumerate(questions) if chat.fits(turns, max_new_tokens=max_new_tokens)]
    for start in range(0, len(fitting), batch):
        part = fitting[start : start + batch]
        found = chat.answer([questions[each] for each in part], settings, max_new_tokens=max_new_tokens, seed=seed)
        for number, reply in zip(part, found, strict=True):
            replies[number] = reply
        on_progress(start + len(part), len(fitting))
    return replies


def score_answers(
    replies: Sequence[Reply], wanted: Sequence[str], *, groups: Sequence[str] = (), seed: int = 0
) -> AnswerScores:
    """
    Args:
        groups: of each answer, what it shares with others; nothing, or an empty name, is a group of its own.

    Raises:
        DataError: there is none.
    """
    if not replies:
        raise DataError("there is no answer to score")
    pairs = [(reply.text, text) for reply, text in zip(replies, wanted, strict=True)]
    each = {
        "exact": [float(folded(given) == folded(text)) for given, text in pairs],
        "f1": [word_f1(given, text) for given, text in pairs],
        "chrf": [chrf(given, text) for given, text in pairs],
        "ended": [float(reply.finish_reason == "stop") for reply in replies],
        "tagged": [float(_TAG.search(given) is not None) for given, _ in pairs],
    }
    unread = sum(reply.finish_reason == "failed" for reply in replies)
    named = _named(groups or [""] * len(replies))
    rates = {name: rate(values, groups=named, seed=seed) for name, values in each.items()}
    return AnswerScores(**rates, unread=unread, each=each, groups=named)


def compare_answers(one: AnswerScores, other: AnswerScores, name: str, *, seed: int = 0) -> Difference:
    """How much higher a score of ``one`` is, on the same questions."""
    before, counts = _sums(other.each[name], other.groups)
    after, _ = _sums(one.each[name], one.groups)
    return paired_difference(before, after, counts, seed=seed)


def rate(values: Sequence[float], *, groups: Sequence[str] = (), seed: int = 0) -> Rate:
    """The mean of values from 0 to 1; without groups, each is drawn again for itself."""
    sums, counts = _sums(values, groups or _named([""] * len(values)))
    low, high = rate_interval(sums, counts, seed=seed)
    return Rate(float(sums.sum() / counts.sum()), low, high, len(values), len(sums))


def _named(groups: Sequence[str]) -> tuple[str, ...]:
    """The same groups, with a name for each answer that stands alone."""
    return tuple(name or f"answer {place}" for place, name in enumerate(groups))


def _sums(values: Sequence[float], groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum and the number of the values of each group."""
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros(place.max() + 1)
    np.add.at(sums, place, values)
    return sums, np.bincount(place).astype(np.float64)


def folded(text: str) -> str:
    """In small letters, without punctuation, with single blanks: what two equal answers have in common.

    A number keeps its sign, and what divides its digits becomes a point; signs say what they say: -5 is not 5, 12,5 is
    12.5, and + is not nothing.
    """
    text = lower_tr(normalise(text)).replace(_MINUS, "-")
    text = re.sub(r"(?<=\d)[.,:](?=\d)", _POINT, re.sub(r"(?<!\w)-(?=\d)", _MINUS, text))
    plain = "".join(" " if unicodedata.category(each)[0] in "PZC" else each for each in text)
    return " ".join(plain.replace(_POINT, ".").replace(_MINUS, "-").split())


def word_f1(given: str, wanted: str) -> float:
    """The harmonic mean of which share of the given words was wanted, and of the wanted ones was given."""
    one, other = folded(given).split(), folded(wanted).split()
    common = sum(min(one.count(word), other.count(word)) for word in set(one))
    return 2 * common / (len(one) + len(other)) if common else 0.0


def chrf(given: str, wanted: str) -> float:
    """Overlap in runs of 1 to 6 characters, blanks left out, recall counting double: 0 to 1.

    A length at which either text has no run is left out.

    Source:
        Popović 2015, as in sacrebleu's chrF2 of one sentence.
    """
    one, other = "".join(given.split()), "".join(wanted.split())
    scores = []
    for size in range(1, NGRAM + 1):
        left, right = _runs(one, size), _runs(other, size)
        if not left or not right:
            continue
        common = sum(min(count, right.get(run, 0)) for run, count in left.items())
        precision, recall = common / sum(left.values()), common / sum(right.values())
        scores.append((precision, recall))
    if not scores:
        return 0.0
    precision, recall = (float(np.mean(part)) for part in zip(*scores, strict=True))
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall) if precision + recall else 0.0


def _runs(text: str, size: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(len(text) - size + 1):
        run = text[start : start + size]
        found[run] = found.get(run, 0) + 1
    return found


def nearest_sentence(question: Sequence[Turn]) -> str:
    """The baseline: of all that was said, the sentence that shares most words with the question, which is the first
    sentence of the last turn; the shorter of equals."""
    sentences = [each.strip() for turn in question for each in _SENTENCE.split(turn.text) if each.strip()]
    first = next(each.strip() for each in _SENTENCE.split(question[-1].text) if each.strip())
    words = set(folded(first).split())
    others = [each for each in sentences if each != first] or [first]
    return max(others, key=lambda each: (len(words & set(folded(each).split())), -len(each)))


class Words(Settings):
    """So many words."""

    kind: Literal["words"]
    least: int = 1
    most: int = 10_000

    def holds(self, answer: str) -> bool:
        return self.least <= len(answer.split()) <= self.most


class Lines(Settings):
    """A list of so many lines, whatever they begin with."""

    kind: Literal["lines"]
    number: int

    def holds(self, answer: str) -> bool:
        return sum(bool(line.strip()) for line in answer.split("\n")) == self.number


class Parts(Settings):
    """So many parts between commas."""

    kind: Literal["parts"]
    number: int

    def holds(self, answer: str) -> bool:
        return len([part for part in re.split(r",|\bve\b", answer) if part.strip()]) == self.number


class Holds(Settings):
    """A word that stands in the answer, with or without an ending."""

    kind: Literal["holds"]
    word: str
    endings: tuple[str, ...] = ()
    """How it may go on, where other words begin like it; "" is its end."""

    def holds(self, answer: str) -> bool:
        goes_on = "|".join(re.escape(each) or r"\b" for each in self.endings)
        return re.search(rf"\b{re.escape(folded(self.word))}(?:{goes_on})", folded(answer)) is not None


class OneOf(Settings):
    """Nothing but one of these."""

    kind: Literal["one of"]
    words: list[str]

    def holds(self, answer: str) -> bool:
        return folded(answer) in {folded(word) for word in self.words}


class Turkish(Settings):
    """A sentence in Turkish."""

    kind: Literal["turkish"]

    def holds(self, answer: str) -> bool:
        return len(answer.split()) >= 3 and language_of(answer) == "tr"


class Number(Settings):
    """Nothing but a number in digits."""

    kind: Literal["number"]

    def holds(self, answer: str) -> bool:
        plain = answer.strip().removesuffix(".")
        return re.fullmatch(r"[+\-\u2212]?(?:\d+|\d{1,3}(?:\.\d{3})+)(?:[.,]\d+)?", plain) is not None


class EndsWith(Settings):
    """The last character."""

    kind: Literal["ends with"]
    mark: str

    def holds(self, answer: str) -> bool:
        return answer.rstrip().endswith(self.mark)


Check = Annotated[Words | Lines | Parts | Holds | OneOf | Turkish | Number | EndsWith, Field(discriminator="kind")]


class Instruction(Settings):
    """Something to do, and how to see that it was done: every check holds."""

    prompt: str
    checks: list[Check] = Field(min_length=1)

    def followed(self, answer: str) -> bool:
        return bool(answer.strip()) and all(check.holds(answer) for check in self.checks)


def instructions() -> list[Instruction]:
    """The instructions that ship, written for this project."""
    text = files("diffutron.evaluation").joinpath("instructions.yaml").read_text(encoding="utf-8")
    return TypeAdapter(list[Instruction]).validate_python(yaml.safe_load(text))
